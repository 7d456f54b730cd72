"""Models that describe pictures and videos, as judges use them: in a server of this machine, or behind an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import numpy as np
from mora_runtime.errors import EndpointFailed, ProtocolError
from mora_runtime.process.run_directory import RunDirectory
from PIL import Image

from mora_launch.chat.endpoint import Chat, picture_part
from mora_launch.environments.catalog import Environments
from mora_launch.evaluation.captions.settings import CaptionSettings
from mora_launch.rounds.judging.judge_agents import judge_agent
from mora_launch.serving.single_server import SingleServer


class Captioner(Protocol):
    """Describes frames."""

    def session(self, directory: RunDirectory) -> AbstractContextManager[object]:
        """The time in which `describe` can be called."""

    def describe(self, frames: Sequence[Image.Image], question: str) -> str:
        """Return the model's answer. Raises: MoraError: it gave none."""


def open_captioner(settings: CaptionSettings, environments: Environments) -> Captioner:
    """Return the captioner of the settings. Raises: MoraError: it cannot be used."""
    return LocalCaptioner(settings, environments) if settings.kind == "local" else EndpointCaptioner(settings)


class LocalCaptioner:
    """A multimodal model in a server process."""

    def __init__(self, settings: CaptionSettings, environments: Environments) -> None:
        assert settings.local is not None
        self._local = settings.local
        self._name = settings.model
        self._server = SingleServer(
            "captioner", judge_agent(settings.local), environments, shown=self._name,
            key="evaluation.captions.local.environment", start_deadline_s=settings.local.start_deadline_s,
        )  # fmt: skip

    def session(self, directory: RunDirectory) -> AbstractContextManager[object]:
        """Start the server; it ends with the context."""
        return self._server.session(directory, "captions")

    def describe(self, frames: Sequence[Image.Image], question: str) -> str:
        """Ask about the frames of one video, or about one picture."""
        from mora_runtime.tensors.arrays import to_tensor

        pixels = to_tensor(np.stack([np.asarray(frame) for frame in frames]))
        arguments = {"frames": pixels, "num_frames": [len(frames)], "question": question, "later": []}
        text = self._server.call("answer", arguments, timeout_s=self._local.timeout_s).get("text")
        if not isinstance(text, str) or not text.strip():
            raise ProtocolError(f"{self._name}: expected a description, got {text!r:.40}")
        return text.strip()


class EndpointCaptioner:
    """A multimodal model behind an OpenAI-compatible endpoint."""

    def __init__(self, settings: CaptionSettings) -> None:
        assert settings.endpoint is not None
        self._chat = Chat(settings.endpoint, "captions (evaluation.captions.endpoint)")

    def session(self, directory: RunDirectory) -> AbstractContextManager[object]:
        """Do nothing, because the model runs elsewhere."""
        return nullcontext()

    def describe(self, frames: Sequence[Image.Image], question: str) -> str:
        """Ask about the frames of one video, or about one picture."""
        content = [{"type": "text", "text": question}, *map(picture_part, frames)]
        text = self._chat.ask([{"role": "user", "content": content}])
        if text is None or not text.strip():
            raise EndpointFailed(f"{self._chat}: answered without text")
        return text.strip()
