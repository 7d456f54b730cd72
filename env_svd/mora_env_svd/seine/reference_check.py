"""Compares this package with reference tensors: `python -m mora_env_svd.seine.reference_check FOLDER [--prefix P]`.

FOLDER contains NAME.json, NAME.data.safetensors and NAME.weights.safetensors. The `kind` in NAME.json says what is
compared, and files of other kinds are left out. The outcome is printed as JSON:

    {"passed": true, "num_values": 1,
     "files": {NAME: {CASE: {VALUE: {"difference": 1e-7, "allowed": 2e-5, "ok": true}}}}}

The difference is null where our value is missing, has another shape or is not finite. A case that cannot run has
{"error": TEXT} instead of values. Exit codes: 0, every value is within its tolerance; 1, one
is not, or a case cannot run; 2, the folder has no file of a known kind, or cannot be read.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mora_env_svd.pixels import to_frames
from mora_env_svd.seine import masks
from mora_env_svd.seine.conditioning import scaled_sample
from mora_env_svd.seine.diffusion import SpacedDiffusion, guide, sample_latents
from mora_env_svd.seine.models import SeineUNet
from mora_env_svd.seine.models.resnet import ResnetBlock
from mora_env_svd.seine.models.temporal_attention import (
    TemporalAttention,
    distance_buckets,
    rotary_frequencies,
    rotate,
)
from mora_env_svd.seine.models.transformer import LevelTransformer

_STATE_DICT = "seine_state_dict"
EXIT_EQUAL, EXIT_DIFFERENT, EXIT_UNUSABLE = 0, 1, 2
_TOLERANCES = {
    "seine_unet": 2e-5,
    "seine_blocks": 2e-5,
    "seine_diffusion": 1e-5,
    "seine_masks": 1e-5,
    "seine_sample": 5e-5,
    "seine_text": 2e-5,
}
_INTERMEDIATE = {"given_and_black"}  # values inside upstream's code that have no counterpart here
_PIXEL_SHARE = 0.02  # of uint8 values that may differ by one
Values = dict[str, Tensor]


@dataclass(frozen=True)
class Difference:
    """One compared value. For uint8 values it is the share of those that differ by one; a larger distance counts 1."""

    difference: float
    allowed: float

    @property
    def ok(self) -> bool:
        return self.difference <= self.allowed  # False for NaN


@dataclass(frozen=True)
class ReferenceCase:
    """One case of a reference file."""

    name: str
    args: dict[str, Any]
    inputs: Values
    outputs: Values


class ReferenceFile:
    """A reference file with the files next to it."""

    def __init__(self, path: Path) -> None:
        self._folder = path.parent
        self.name = path.stem
        self.meta: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))

    @property
    def kind(self) -> str:
        return str(self.meta.get("kind"))

    def cases(self) -> Iterator[ReferenceCase]:
        tensors = load_file(self._folder / f"{self.name}.data.safetensors")

        def of(case: str, part: str) -> Values:
            prefix = f"{case}/{part}/"
            return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

        for entry in self.meta["cases"]:
            name = entry["name"]
            yield ReferenceCase(name, entry["args"], of(name, "inputs"), of(name, "outputs"))

    def weights(self, prefix: str = "") -> Values:
        """float32 weights whose keys begin with the prefix, without it."""
        stored = load_file(self._folder / self.meta["weights"].split()[0].rstrip(","))
        return {key.removeprefix(prefix): value.float() for key, value in stored.items() if key.startswith(prefix)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a folder, print the outcome as JSON, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mora_env_svd.seine.reference_check", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, help="with the reference files")
    parser.add_argument("--prefix", default="", help="check only files whose names begin with it")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        found = check_folder(chosen.folder, chosen.prefix)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        print(f"{chosen.folder}: cannot be read as reference files: {type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    if not found:
        known = ", ".join(_KINDS)
        print(f"{chosen.folder}: expected {chosen.prefix}*.json of a known kind ({known}), found none", file=sys.stderr)
        return EXIT_UNUSABLE
    values = [value for file in found.values() for case in file.values() for value in case.values()]
    passed = all(isinstance(value, Difference) and value.ok for value in values) and bool(values)
    print(json.dumps({"passed": passed, "num_values": len(values), "files": _shown(found)}, indent=1))
    return EXIT_EQUAL if passed else EXIT_DIFFERENT


Outcome = dict[str, dict[str, "Difference | str"]]


def check_folder(folder: Path, prefix: str = "") -> dict[str, Outcome]:
    """By file and case, the differences by value; a case that cannot run has one text, `error`."""
    files = [ReferenceFile(path) for path in sorted(folder.glob(f"{prefix}*.json"))]
    return {file.name: check_file(file) for file in files if file.kind in _KINDS}


def check_file(file: ReferenceFile) -> Outcome:
    """By case, the differences by value."""
    if file.kind == _STATE_DICT:
        return {"keys and shapes": _state_dict(file)}
    outcome: Outcome = {}
    for case in file.cases():
        try:
            got = _CHECKS[file.kind](file, case)
            outcome[case.name] = dict(_differences(case.outputs, got, _TOLERANCES[file.kind]))
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            outcome[case.name] = {"error": f"{type(error).__name__}: {error}"}
    return outcome


def _differences(expected: Mapping[str, Tensor], got: Mapping[str, Tensor], tolerance: float) -> Iterator[
    tuple[str, Difference]
]:  # fmt: skip
    for name, reference in expected.items():
        if name in _INTERMEDIATE:
            continue
        found = got.get(name)
        if found is None or found.shape != reference.shape:
            yield name, Difference(float("inf"), 0.0)
        elif reference.dtype == torch.uint8:
            distance = (found.int() - reference.int()).abs()
            share = (distance > 0).float().mean().item() if int(distance.max()) <= 1 else 1.0
            yield name, Difference(share, _PIXEL_SHARE)
        else:
            exact = not reference.is_floating_point()
            difference = (found.detach().double() - reference.double()).abs().max().item()
            yield name, Difference(difference, 0.0 if exact else tolerance * max(1.0, reference.abs().max().item()))


def _shown(found: Mapping[str, Outcome]) -> dict[str, Any]:
    def one(value: Difference | str) -> Any:
        if isinstance(value, str):
            return value
        known = value.difference if math.isfinite(value.difference) else None  # JSON has no infinity
        return {"difference": known, "allowed": value.allowed, "ok": value.ok}

    return {
        file: {case: {name: one(value) for name, value in values.items()} for case, values in cases.items()}
        for file, cases in found.items()
    }


def _with_gradients(
    module: nn.Module, leaves: Mapping[str, Tensor], call: Callable[..., Tensor], case: ReferenceCase
) -> Values:
    """`output`, and the gradients of sum(output * probe) in the inputs and in the parameters that the case names."""
    inputs = {name: value.clone().requires_grad_() for name, value in leaves.items()}
    output = call(*inputs.values())
    (output * case.inputs["probe"]).sum().backward()
    got = {"output": output} | {f"grad_{name}": _gradient(value) for name, value in inputs.items()}
    return got | {f"grad.{name}": _gradient(value) for name, value in module.named_parameters()}


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _loaded(file: ReferenceFile) -> SeineUNet:
    model = SeineUNet.from_config(file.meta["config"])
    model.load_state_dict(file.weights(), strict=True)
    return model


def _unet(file: ReferenceFile, case: ReferenceCase) -> Values:
    model, timestep = _loaded(file), case.inputs["timestep"]
    leaves = {name: case.inputs[name] for name in ("sample", "encoder_hidden_states")}
    return _with_gradients(model, leaves, lambda sample, text: model(sample, timestep, text), case)


def _block(file: ReferenceFile, case: ReferenceCase) -> Values:
    if case.name == "buckets":
        return {"bucket": distance_buckets(case.outputs["bucket"].shape[0])}
    if case.name == "rotary":
        return _rotary(case)
    args, inputs = case.args, case.inputs
    weights = file.weights(f"{case.name}/")
    if "in_channels" in args:
        resnet = ResnetBlock(
            args["in_channels"], args["out_channels"], args["temb_channels"], args["groups"], args["eps"]
        )
        resnet.load_state_dict(weights)
        leaves = {name: inputs[name] for name in ("hidden_states", "temb")}
        return _with_gradients(resnet, leaves, resnet, case)
    if "groups" in args:
        level = LevelTransformer(args["channels"], args["heads"], args["cross_attention_dim"], args["groups"])
        level.load_state_dict(weights)
        leaves = {name: inputs[name] for name in ("hidden_states", "encoder_hidden_states")}
        return _with_gradients(level, leaves, level, case)
    attention = TemporalAttention(args["dim"], args["heads"])
    attention.load_state_dict(weights)
    got = _with_gradients(attention, {"hidden_states": inputs["hidden_states"]}, attention, case)
    return got | {"bias": attention.time_rel_pos_bias(inputs["hidden_states"].shape[1])}


def _rotary(case: ReferenceCase) -> Values:
    heads, frequencies = case.inputs["q"], rotary_frequencies()
    halves = {"rotated_bfloat16": torch.bfloat16, "rotated_float16": torch.float16}
    rounded = {name: rotate(heads.to(dtype), frequencies.to(dtype)) for name, dtype in halves.items()}
    return {"rotated": rotate(heads, frequencies), **rounded}


def _diffusion(file: ReferenceFile, case: ReferenceCase) -> Values:
    args, inputs = case.args, case.inputs
    if "scale" in args:
        return {"guided": guide(inputs["model_output"], args["scale"])}
    process = SpacedDiffusion.from_config(args["num_steps"])
    if "t" not in args:
        return {"timesteps": process.timesteps, **vars(process.table)}
    x, eps, t, noise = inputs["x"], inputs["eps"], args["t"], inputs["noise"]
    return {
        "pred_x0": process.predicted_clean(x, eps, t),
        "ddpm_sample": process.ddpm_step(x, eps, t, noise),
        "ddim_sample": process.ddim_step(x, eps, t),
        "ddim_eta_sample": process.ddim_step(x, eps, t, eta=args["eta"], noise=noise),
    }


def _masks(file: ReferenceFile, case: ReferenceCase) -> Values:
    args, inputs = case.args, case.inputs
    if "decoded" in inputs:
        decoded = inputs["decoded"]
        return {"frames": to_frames(decoded), "frames_half": to_frames(decoded.half())}
    if "moments" in inputs:
        return {"latents": scaled_sample(inputs["moments"], inputs["eps"])}
    kind, num_frames, height, width = args["kind"], args["num_frames"], args["height"], args["width"]
    if "mask" in case.outputs:
        latent = masks.latent_mask(kind, num_frames, height, width)
        return {"mask": masks.frame_mask(kind, num_frames), "latent_mask": latent}
    images = [inputs[f"image_{index}"] for index in range(len(inputs))]
    return {"masked_clip": masks.masked_clip(kind, images, num_frames, height, width)}


def _sample(file: ReferenceFile, case: ReferenceCase) -> Values:
    args, inputs = case.args, case.inputs
    steps: list[Tensor] = []
    with torch.no_grad():
        latents = sample_latents(
            _loaded(file),
            SpacedDiffusion.from_config(args["num_steps"]),
            inputs["noise"],
            inputs["mask"],
            inputs["masked_latents"],
            inputs["text"],
            guidance_scale=args["guidance_scale"],
            method=args["method"],
            step_noise=inputs["step_noise"],
            on_step=lambda _, x: steps.append(x),
        )
    return {"latents": latents, "first_x": steps[0]}


def _text(file: ReferenceFile, case: ReferenceCase) -> Values:
    from transformers import CLIPTextConfig, CLIPTextModel

    from mora_env_svd.clip_text import load_clip_weights

    model = CLIPTextModel(CLIPTextConfig(**file.meta["config"])).eval()
    load_clip_weights(model, file.weights())
    with torch.no_grad():
        return {"last_hidden_state": model(**case.inputs).last_hidden_state}


def _state_dict(file: ReferenceFile) -> dict[str, Difference | str]:
    """How many keys or shapes differ from the list."""
    with torch.device("meta"):
        model = SeineUNet.from_config(file.meta["config"])
    own = {key: list(value.shape) for key, value in model.state_dict().items()}
    listed: dict[str, list[int]] = file.meta["keys"]
    wrong = [key for key in own.keys() | listed.keys() if own.get(key) != listed.get(key)]
    return {"wrong keys": Difference(float(len(wrong)), 0.0)}


_CHECKS: dict[str, Callable[[ReferenceFile, ReferenceCase], Values]] = {
    "seine_unet": _unet,
    "seine_blocks": _block,
    "seine_diffusion": _diffusion,
    "seine_masks": _masks,
    "seine_sample": _sample,
    "seine_text": _text,
}
_KINDS = (*_CHECKS, _STATE_DICT)

if __name__ == "__main__":
    sys.exit(main())
