"""RAFT's agent: whether a video moves, and how little its frames flicker."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from mora_runtime.errors import BadArgument
from torch import Tensor

from mora_env_vbench.arguments import check_sides
from mora_env_vbench.batch_size import num_at_once
from mora_env_vbench.formulas.dynamic import DYNAMIC_SHARE, flow_values, movement_threshold, moves, needed_pairs
from mora_env_vbench.formulas.flickering import mean_differences, steadiness
from mora_env_vbench.formulas.stillness import STILL_SHARE, allowed_pairs, is_still, stillness_threshold
from mora_env_vbench.metric_agent import MetricAgent
from mora_env_vbench.preparation.frame_choice import dynamic_stride
from mora_env_vbench.preparation.network_input import channels_first
from mora_env_vbench.preparation.padding import padded
from mora_env_vbench.published_files import RAFT
from mora_env_vbench.raft.network import Raft
from mora_env_vbench.raft.options import RaftOptions
from mora_env_vbench.weights.loading import load_network

_DYNAMIC, _FLICKERING = "dynamic_degree", "temporal_flickering"
_NUM_ITERATIONS = 20
_MULTIPLE = 8  # of which padded sides are multiples
_LEAST_SAMPLED = 3  # frames; of two, no pair would have to move


class RaftAgent(MetricAgent):
    """Measures dynamic_degree, and temporal_flickering, which needs no network.

    Args:
        options: checked options.
    """

    def __init__(self, options: RaftOptions, device: torch.device) -> None:
        path = RAFT.find(options.weights)
        self._network = load_network(path, Raft.of_shapes, within="module.").to(device)
        self._options, self._device = options, device
        super().__init__(
            "RAFT",
            {_DYNAMIC: 1, _FLICKERING: 1},
            least=2,
            files=[(RAFT, path)],
            settings="static filter" if options.static_filter else "",
        )

    def _measured(self, dimension: str, frames: Tensor, fps: float, prompt: str, words: str) -> dict[str, Any]:
        if dimension == _DYNAMIC:
            return self._dynamic(frames, fps)
        if self._options.static_filter:
            self._check_still(frames)
        differences = mean_differences(frames[:-1], frames[1:])
        return {"score": steadiness(differences), "weight": 1.0, "differences": differences.float()}

    def _dynamic(self, frames: Tensor, fps: float) -> dict[str, Any]:
        """1 or 0, with the flow value of each pair of sampled frames."""
        check_sides(frames, _MULTIPLE, _DYNAMIC)
        sampled = _sampled(frames, fps)
        height, width = frames.shape[1:3]
        values = self._flow_values(sampled)
        threshold, needed = movement_threshold(height, width), needed_pairs(len(sampled))
        return {
            "score": float(moves(values.tolist(), threshold, needed)),
            "weight": 1.0,
            "pairs": values,
            "threshold": threshold,
            "needed": float(needed),
        }

    def _check_still(self, frames: Tensor) -> None:
        """Raises BadArgument if the video moves."""
        check_sides(frames, _MULTIPLE, _FLICKERING)
        values = self._flow_values(frames, STILL_SHARE).tolist()
        ends = self._flow_values(frames[[0, -1, 0]], STILL_SHARE).tolist()
        height, width = frames.shape[1:3]
        threshold, allowed = stillness_threshold(height, width), allowed_pairs(len(frames))
        if not is_still(values, ends, threshold, allowed):
            num_moving = sum(value > threshold for value in values)
            raise BadArgument(
                f"{_FLICKERING}: expected a still video, because `static_filter` is on; {num_moving} of {len(values)} "
                f"pairs of frames move by more than {threshold:g} pixels, first and last frame by {max(ends):.3g}"
            )

    def _flow_values(self, frames: Tensor, share: float = DYNAMIC_SHARE) -> Tensor:
        """(F - 1,): of each pair of neighbours."""
        return torch.cat([flow_values(flows, share).cpu() for flows in self._flows(frames)])

    def _flows(self, frames: Tensor) -> Iterator[Tensor]:
        """The flows between neighbours, some pairs at a time; every frame goes through the encoders once."""
        size = num_at_once(self._options.frames_at_once, frames[0, :, :, 0].numel(), self._device)
        earlier = self._pictures(frames[:1])
        earlier_features = self._network.features(earlier)
        for piece in frames[1:].split(size):
            later = self._pictures(piece)
            features = torch.cat([earlier_features, self._network.features(later)])
            context = self._network.context(torch.cat([earlier, later[:-1]]))
            yield self._network.flow(features[:-1], features[1:], context, _NUM_ITERATIONS)
            earlier, earlier_features = later[-1:], features[-1:]

    def _pictures(self, frames: Tensor) -> Tensor:
        return padded(channels_first(frames.to(self._device)).float(), _MULTIPLE)


def _sampled(frames: Tensor, fps: float) -> Tensor:
    """The frames at about 8 frames a second.

    Raises:
        BadArgument: there are too few of them, or the frame rate is none.
    """
    if not (math.isfinite(fps) and fps > 0):
        raise BadArgument(f"{_DYNAMIC}: expected a positive number of frames a second, got {fps}")
    stride = dynamic_stride(fps)
    sampled = frames[::stride]
    if len(sampled) < _LEAST_SAMPLED:
        raise BadArgument(
            f"{_DYNAMIC}: expected at least {_LEAST_SAMPLED} sampled frames, got {len(sampled)}: "
            f"1 of {stride} is sampled at {fps:g} frames a second, of {len(frames)} frames"
        )
    return sampled
