"""ViCLIP's agent: how well a video fits its prompt, and features of videos and texts that can be compared."""

from __future__ import annotations

from typing import Any

import torch
from mora_runtime import remote
from mora_runtime.errors import BadArgument
from torch import Tensor
from torch.nn import functional

from mora_env_vbench.arguments import check_frames
from mora_env_vbench.clip.network import in_dtype
from mora_env_vbench.clip.tokenizer import tokenizer
from mora_env_vbench.metric_agent import MetricAgent
from mora_env_vbench.preparation.frame_choice import middle_frames
from mora_env_vbench.preparation.network_input import clip_uint8
from mora_env_vbench.published_files import VICLIP
from mora_env_vbench.viclip.network import Viclip
from mora_env_vbench.viclip.options import ViclipOptions
from mora_env_vbench.weights.loading import load_network


class ViclipAgent(MetricAgent):
    """Measures temporal_style and overall_consistency, which have the same formula and other prompts.

    Args:
        options: checked options.
    """

    def __init__(self, options: ViclipOptions, device: torch.device) -> None:
        path = VICLIP.find(options.weights)
        network = load_network(path, Viclip.of_shapes, within="model.")
        self._network = in_dtype(network, options.clip_dtype).to(device)
        self._device = device
        super().__init__(
            "ViCLIP-L/14",
            {"temporal_style": 1, "overall_consistency": 1},
            least=2,
            files=[(VICLIP, path)],
            settings=options.clip_dtype,
        )

    @remote(host_arguments=("frames",))
    def features(self, frames: torch.Tensor) -> dict[str, Any]:
        """`features`, float32 (embed,) of length 1, of a video uint8 (F, H, W, 3)."""
        check_frames(frames)
        with torch.inference_mode():
            return {"features": self._video(frames)}

    @remote
    def text_features(self, text: str) -> dict[str, Any]:
        """`features`, float32 (embed,) of length 1, of a text; a long one is cut."""
        with torch.inference_mode():
            return {"features": self._text(text)}

    def _video(self, frames: Tensor) -> Tensor:
        encoder = self._network.vision_encoder
        chosen = frames[middle_frames(len(frames), encoder.num_frames)].to(self._device)
        pictures = clip_uint8(chosen, encoder.sizes.image).to(encoder.proj.dtype)
        return functional.normalize(encoder(pictures[None])[0].float(), dim=0).cpu()

    def _text(self, text: str) -> Tensor:
        encoder = self._network.text_encoder
        tokens = tokenizer().batch([text], encoder.sizes.length, cut=True)
        return functional.normalize(encoder.encode(tokens.to(self._device))[0].float(), dim=0).cpu()

    def _measured(self, dimension: str, frames: Tensor, fps: float, prompt: str, words: str) -> dict[str, Any]:
        if not prompt.strip():
            raise BadArgument(f"{dimension}: expected the prompt of this video, got none")
        return {"score": float(self._video(frames) @ self._text(prompt)), "weight": 1.0}
