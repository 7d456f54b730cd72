"""Options that all UNet agents have. Checking them imports no model library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from mora_environment.component import Component
from mora_environment.model_folder import count_parameters, model_components
from mora_environment.weights.weights_source import WeightsSource
from mora_runtime.schema import Settings
from pydantic import Field, model_validator

_TOKENIZER_FILES = ("*.json", "*.txt")
NBYTES = {"float32": 4, "bfloat16": 2}


class UnetOptions(Settings):
    """A subclass names its text encoders, the numbers of parameters of the published models, and its defaults."""

    text_encoders: ClassVar[tuple[str, ...]] = ("text_encoder",)
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {}

    model: str  # folder in diffusers' layout (relative to the checkout), or a Hub id
    unet: str | None = None  # folder of trained UNet weights, instead of those in `model`
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the weights
    height: int = Field(ge=8, multiple_of=8)  # pixels, of the pictures in a chain; a request names its own size
    width: int = Field(ge=8, multiple_of=8)  # pixels, as `height`
    num_inference_steps: int = Field(default=50, ge=1, le=1000)  # denoising steps
    guidance_scale: float = Field(default=5.0, ge=0.0)  # <= 1 switches guidance off
    gradient_steps: int | Literal["all"] = 1  # K: the last K denoising steps carry gradient (DRaFT-K)
    gradient_checkpointing: bool = False  # compute activations again in the backward, which needs less memory
    # Requests: a picture's bytes are the same in any batch. False = one pass for the whole batch, which is faster.
    batch_invariant: bool = True
    snr_gamma: float = Field(default=5.0, gt=0.0)  # of the loss: weight min(SNR, gamma) / SNR

    @model_validator(mode="after")
    def _steps_fit(self) -> UnetOptions:
        steps = self.gradient_steps
        if isinstance(steps, int) and not 1 <= steps <= self.num_inference_steps:
            raise ValueError(
                f"gradient_steps {steps} must be between 1 and num_inference_steps {self.num_inference_steps}, "
                "or be `all`"
            )
        return self

    def num_gradient_steps(self, num_inference_steps: int | None = None) -> int:
        """Number of last steps with gradient, of the option's steps or of those that a call names."""
        num_steps = self.num_inference_steps if num_inference_steps is None else num_inference_steps
        return num_steps if self.gradient_steps == "all" else min(self.gradient_steps, num_steps)

    def components(self) -> list[Component]:
        """Models that an agent with these options loads."""
        if self.unet is not None:
            count_parameters(Path(self.unet), self.unet)  # refuses a folder without weights
        names = ("unet", "vae", *self.text_encoders)
        found = model_components(
            self.model,
            names,
            trainable="unet",
            unloaded=self.text_encoders,
            dtype_nbytes=NBYTES[self.dtype],
            published=self.published,
        )
        vae_nbytes = NBYTES["float32" if upcasts_vae(Path(self.model)) else self.dtype]
        return [each.model_copy(update={"dtype_nbytes": vae_nbytes}) if each.name == "vae" else each for each in found]

    def weights_sources(self) -> list[WeightsSource]:
        """Files that an agent with these options loads."""
        diffused = ("vae",) if self.unet is not None else ("unet", "vae")
        stems = dict.fromkeys(diffused, "diffusion_pytorch_model") | dict.fromkeys(self.text_encoders, "model")

        def source(
            subfolder: str, *files: str, weights: str | None = None, extras: tuple[str, ...] = ()
        ) -> WeightsSource:
            return WeightsSource(
                option="model", name=self.model, subfolder=subfolder, files=files, extras=extras, weights=weights
            )

        return [
            source("", "model_index.json"),
            source("scheduler", "scheduler_config.json"),
            *(
                source(name.replace("text_encoder", "tokenizer"), extras=_TOKENIZER_FILES)
                for name in self.text_encoders
            ),
            *(source(name, "config.json", weights=stem) for name, stem in stems.items()),
        ]

    def weights_folder(self) -> str:
        """The folder of the UNet."""
        return self.unet or f"{self.model}/unet"


def upcasts_vae(model: Path) -> bool:
    """Whether the autoencoder is float32 in any case; so it is where config.json does not name `force_upcast`."""
    path = model / "vae" / "config.json"
    return not path.is_file() or bool(json.loads(path.read_text(encoding="utf-8")).get("force_upcast", True))
