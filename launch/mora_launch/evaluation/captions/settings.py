"""The section `evaluation.captions`: who describes pictures and videos, and how descriptions are compared."""

from __future__ import annotations

from typing import Literal

from mora_runtime.schema import PositiveInt, Settings
from pydantic import Field, model_validator

from mora_launch.config.agent_config import AgentConfig
from mora_launch.rounds.settings import EndpointSettings, LocalModelSettings


class TextEmbeddingSettings(Settings):
    """A text encoder in a server process on this machine, which runs only while captions are compared."""

    environment: str = "sd3"  # one whose package has the kind `text_embedding`
    model: str = "google-bert/bert-base-uncased"  # folder in transformers' layout, or a Hub id
    pooling: Literal["mean", "first"] = "mean"  # a text's vector: mean over its tokens, or the first token's
    device: str = "cpu"  # cpu, or cuda:N
    num_threads: PositiveInt = 1  # torch's threads of the server
    timeout_s: float = Field(default=300.0, gt=0.0)  # of one call
    start_deadline_s: float = Field(default=900.0, gt=0.0)  # includes loading the model

    def agent(self) -> AgentConfig:
        """The agent of the settings."""
        return AgentConfig(
            environment=self.environment, kind="text_embedding", devices=(self.device,), num_threads=self.num_threads,
            options={"model": self.model, "pooling": self.pooling},
        )  # fmt: skip


class CaptionSettings(Settings):
    """Captions for VideoTI. The paper took LLaVA, Video-LLaMA and BERT, and tells neither questions nor settings."""

    kind: Literal["local", "endpoint"] = "local"  # a model in a server of this machine, or behind an endpoint
    local: LocalModelSettings | None = None  # of kind `local`
    endpoint: EndpointSettings | None = None  # of kind `endpoint`
    num_frames: PositiveInt = 16  # of a video, shown to the model
    frame_height: PositiveInt = 384  # pixels; never enlarged
    image_question: str = "Describe this image in one or two sentences."  # asked with the picture
    video_question: str = "Describe this video in one or two sentences."  # asked with the frames
    embedding: TextEmbeddingSettings = TextEmbeddingSettings()

    @model_validator(mode="after")
    def _complete(self) -> CaptionSettings:
        if (self.local if self.kind == "local" else self.endpoint) is None:
            raise ValueError(f"kind `{self.kind}` needs the section `{self.kind}` with its model")
        return self

    @property
    def model(self) -> str:
        """Name of the model that describes."""
        chosen = self.local if self.kind == "local" else self.endpoint
        assert chosen is not None
        return f"{self.kind}:{chosen.model}"
