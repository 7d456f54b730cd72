"""CLIP's agent: whether the background of a video stays the same, and whether its frames have a style."""

from __future__ import annotations

from typing import Any

import torch
from mora_runtime import remote
from mora_runtime.errors import BadArgument
from torch import Tensor

from mora_env_vbench.arguments import check_frames
from mora_env_vbench.clip.network import load_clip
from mora_env_vbench.clip.options import ClipOptions
from mora_env_vbench.clip.tokenizer import tokenizer
from mora_env_vbench.formulas.consistency import consistency
from mora_env_vbench.metric_agent import MetricAgent, in_pieces
from mora_env_vbench.preparation.network_input import clip_float, clip_pil

_BACKGROUND, _STYLE = "background_consistency", "appearance_style"
_FULL_LOGIT = 100.0  # VBench divides the scaled cosine by it


class ClipAgent(MetricAgent):
    """Measures background_consistency and appearance_style.

    Args:
        options: checked options.
    """

    def __init__(self, options: ClipOptions, device: torch.device) -> None:
        path = options.file.find(options.weights)
        self._network = load_clip(path, options.clip_dtype, device)
        self._options, self._device = options, device
        super().__init__(
            f"CLIP {options.model}",
            {_BACKGROUND: 1, _STYLE: 1},
            least=1,
            files=[(options.file, path)],
            settings=options.clip_dtype,
        )

    @remote(host_arguments=("frames",))
    def features(self, frames: torch.Tensor) -> dict[str, Any]:
        """`features`, float32 (F, embed), one row for each frame uint8 (F, H, W, 3)."""
        check_frames(frames)
        with torch.inference_mode():
            return {"features": self._features(frames, _BACKGROUND)}

    @remote
    def text_features(self, text: str) -> dict[str, Any]:
        """`features`, float32 (embed,), of a text."""
        with torch.inference_mode():
            return {"features": self._text(text)[0].float().cpu()}

    def _features(self, frames: Tensor, dimension: str) -> Tensor:
        prepare, side = (clip_pil if dimension == _STYLE else clip_float), self._network.visual.sizes.image
        return in_pieces(
            frames,
            self._options.frames_at_once,
            self._device,
            lambda piece: self._network.visual(prepare(piece, side)),
        )

    def _text(self, text: str) -> Tensor:
        tokens = tokenizer().batch([text], self._network.sizes.length, cut=False)
        return self._network.encode(tokens.to(self._device))

    def _measured(self, dimension: str, frames: Tensor, fps: float, prompt: str, words: str) -> dict[str, Any]:
        if dimension == _STYLE:
            return self._style(frames, words)
        check_frames(frames, least=2, what=dimension)
        return consistency(self._features(frames, dimension))

    def _style(self, frames: Tensor, words: str) -> dict[str, Any]:
        if not words.strip():
            raise BadArgument(f"{_STYLE}: expected style words, such as `oil painting`, got none for this video")
        text, pictures = self._text(words).float(), self._features(frames, _STYLE).to(self._device)
        values = (self._network.similarity(pictures, text)[0] / _FULL_LOGIT).float().cpu()
        return {"score": float(values.double().mean()), "weight": float(len(values)), "frames": values}
