"""Cases of inputs: resized and normalised frames, patches, frame choice, padding and tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mora_runtime.errors import BadArgument
from torch import Tensor

from mora_env_vbench.clip.tokenizer import tokenizer
from mora_env_vbench.formulas.dynamic import movement_threshold, needed_pairs
from mora_env_vbench.goldens.case_file import Case, CaseFile
from mora_env_vbench.goldens.comparison import Differences
from mora_env_vbench.musiq.patches import multiscale_patches
from mora_env_vbench.preparation import network_input
from mora_env_vbench.preparation.frame_choice import dynamic_stride, middle_frames
from mora_env_vbench.preparation.imaging_input import imaging_input
from mora_env_vbench.preparation.network_input import channels_first
from mora_env_vbench.preparation.padding import padding_to
from mora_env_vbench.weights.recipe import made_clip

TOLERANCE = 0.0
_STATISTICS_TOLERANCE = 1e-6  # of means and deviations, which sum in another order
_MULTIPLES = {"raft": 8, "amt": 16}
_TEXT_LENGTHS = {"clip": (77, False), "viclip": (32, True)}
_PATHS: dict[str, Callable[[Tensor], Tensor]] = {
    "dino_float": network_input.dino_float,
    "clip_float": network_input.clip_float,
    "clip_uint8": network_input.clip_uint8,
    "clip_pil": network_input.clip_pil,
}


def check_preparation(file: CaseFile, case: Case, found: Differences) -> None:
    """Compare one case."""
    path = next((path for path in _PATHS if case.name.endswith(f"_{path}")), None)
    if path is not None:
        clip = clips_of(file)[case.name.removesuffix(f"_{path}")]
        _sampled(case, _PATHS[path](clip), found)
    elif "mode" in case.args:
        _sampled(case, imaging_input(made_clip(**case.args["recipe"]), case.args["mode"] or "None"), found)
    elif "pixels" in case.outputs:
        _patches(case, clips_of(file)[case.name.rpartition("_")[2]], found)
    elif case.name in _TABLES:
        _TABLES[case.name](case.values, found)
    else:
        raise ValueError(f"no such comparison: {case.description}")


def clips_of(file: CaseFile) -> dict[str, Tensor]:
    """The clips that the cases of a file share, by name: the case's name without the path of the input."""
    return {
        case.name.removesuffix(f"_{path}"): case.inputs["clip"]
        for case in file.cases
        if "clip" in case.inputs
        for path in _PATHS
        if case.name.endswith(f"_{path}")
    }


def _sampled(case: Case, whole: Tensor, found: Differences) -> None:
    start, step = case.args["a"], case.args["s"]
    found.add(whole[..., start::step, start::step], case.outputs["x"])
    _statistics(case, whole, found)


def _statistics(case: Case, whole: Tensor, found: Differences) -> None:
    told = {name: value for name, value in case.values.items() if name in ("mean", "std")}
    found.add(list(whole.shape), case.values["shape"])
    found.add({"mean": float(whole.double().mean()), "std": float(whole.double().std())}, told, _STATISTICS_TOLERANCE)
    found.add(float(whole.min()), case.values["min"])
    found.add(float(whole.max()), case.values["max"])


def _patches(case: Case, clip: Tensor, found: Differences) -> None:
    patches = multiscale_patches(channels_first(clip[:1]).float() / 255.0 * 2 - 1)
    columns = (patches.positions, patches.scales, patches.is_real)
    told = torch.stack([column.float() for column in columns], dim=-1)[None]
    whole = torch.cat([patches.pixels, told], dim=-1)
    found.add(whole[:, ::7, 5:3072:61], case.outputs["pixels"])
    found.add(told, case.outputs["pos_scale_mask"])
    _statistics(case, whole, found)


def _indices(values: Any, found: Differences) -> None:
    for number, frames in values["middle8"].items():
        found.add(middle_frames(int(number)), frames)
    for fps, stride in values["stride"].items():
        found.add(dynamic_stride(float(fps)), stride)
    for size, told in values["threshold_count"].items():
        height, width, num_frames = map(int, size.split("x"))
        found.add([movement_threshold(height, width), needed_pairs(num_frames)], told)


def _padding(values: Any, found: Differences) -> None:
    for size, told in values.items():
        height, width = map(int, size.split("x"))
        for network, padding in told.items():
            found.add(list(padding_to(height, width, _MULTIPLES[network])), padding)


def _tokens(values: Any, found: Differences) -> None:
    for entry in values:
        for network, (length, cut) in _TEXT_LENGTHS.items():
            try:
                ids: list[int] | None = tokenizer().ids(entry["text"], length, cut=cut)
            except BadArgument:
                ids = None
            found.add(ids, entry[network])


_TABLES: dict[str, Callable[[Any, Differences], None]] = {"indices": _indices, "padding": _padding, "tokens": _tokens}
