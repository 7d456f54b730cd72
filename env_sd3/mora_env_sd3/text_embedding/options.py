"""Options of text encoders. Checking them imports no model library."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mora_environment.component import Component
from mora_environment.model_folder import count_parameters
from mora_environment.weights.weights_source import WeightsSource
from mora_runtime.schema import Settings
from pydantic import Field

_TOKENIZER_FILES = ("*.json", "*.txt", "*.model")


class TextEmbeddingOptions(Settings):
    """Options of a text encoder (`kind: text_embedding`)."""

    model: str  # folder in transformers' layout (relative to the checkout), or a Hub id: BERT or a like encoder
    # a text's vector: mean of the last hidden states of its tokens, or the state of the first token
    pooling: Literal["mean", "first"] = "mean"
    max_length: int = Field(default=512, ge=8)  # tokens of a text; what is longer is cut

    def components(self) -> list[Component]:
        """The encoder, which does not train. A model that is not downloaded yet counts as zero parameters."""
        folder = Path(self.model)
        number = count_parameters(folder, self.model) if folder.is_dir() else 0
        return [Component(name="model", num_parameters=number, dtype_nbytes=4, trainable=False)]

    def weights_sources(self) -> list[WeightsSource]:
        """Files that the agent loads."""
        return [
            WeightsSource(
                option="model", name=self.model, files=("config.json",), extras=_TOKENIZER_FILES, weights="model"
            )
        ]
