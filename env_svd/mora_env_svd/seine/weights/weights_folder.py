"""Folders of the UNet: `config.json` and `diffusion_pytorch_model.safetensors`, loaded strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mora_runtime.files.fresh_file import fresh_file, write_fresh
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mora_env_svd.errors import WeightsFileError
from mora_env_svd.seine.models import SeineUNet
from mora_env_svd.seine.models.temporal_attention import rotary_frequencies

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
FREQUENCIES = ".rotary_emb.freqs"
_MAX_NUM_NAMES = 12  # of tensors that an error lists for each kind of mismatch


def load_unet(
    folder: str | Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> SeineUNet:
    """The network of a folder, in eval mode, its weights of `dtype` on `device`.

    Raises:
        ConfigError: the config is not SEINE's.
        WeightsFileError: a file is absent or broken, or tensors do not fit the config. Then nothing is loaded.
    """
    config, weights = read_folder(Path(folder))
    with torch.device("meta"):
        model = SeineUNet.from_config(config)
    load_strictly(model, weights, source=Path(folder).name, dtype=dtype, device=device)
    return model


def save_unet(model: SeineUNet, folder: str | Path) -> None:
    """Write a folder that `load_unet` loads; each file appears whole or not at all."""
    write_folder(Path(folder), model.config_json(), model.state_dict())


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and weights.

    Raises:
        WeightsFileError: a file is absent or broken.
    """
    try:
        config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        weights = load_file(folder / WEIGHTS_NAME)
    except (OSError, ValueError, SafetensorError) as error:
        raise WeightsFileError(
            f"`{folder.name}`: expected {CONFIG_NAME} and {WEIGHTS_NAME} of SEINE's UNet in it ({error})"
        ) from None
    if not isinstance(config, dict):
        raise WeightsFileError(f"`{folder.name}/{CONFIG_NAME}`: expected a JSON object, got {type(config).__name__}")
    return config, weights


def write_folder(folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Write both files; each appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    # copies: safetensors refuses views and shared memory
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    with fresh_file(folder / WEIGHTS_NAME, synced=True) as file:
        file.write(save(tensors, {"format": "pt"}))
    write_fresh(folder / CONFIG_NAME, json.dumps(dict(config), indent=2, sort_keys=True) + "\n", synced=True)


def load_strictly(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    source: str,
    dtype: torch.dtype,
    device: torch.device | str,
) -> None:
    """Put weights into a model, which may be on the meta device, only if they fit exactly.

    Rotary frequencies are completed; see `completed`.

    Raises:
        WeightsFileError: lists missing, unexpected and mis-shaped tensors and those with NaN or infinity.
    """
    own = model.state_dict()
    complete = completed(own, weights)
    check_fit(own, complete, f"{type(model).__name__} from `{source}`")
    cast = {
        name: tensor.to(device=device, dtype=torch.float32 if name.endswith(FREQUENCIES) else dtype)
        for name, tensor in complete.items()
    }
    model.load_state_dict(cast, strict=True, assign=True)


def completed(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with the rotary frequencies by their rule where they are absent or rounded to half precision.

    Args:
        own: the state dict of the model.
    """
    by_rule = {name: rotary_frequencies() for name in own if name.endswith(FREQUENCIES)}
    exact = {name: tensor for name, tensor in weights.items() if tensor.dtype == torch.float32 or name not in by_rule}
    return {**by_rule, **exact}


def check_fit(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], shown: str) -> None:
    """Refuse weights that do not fit a model's state dict exactly. Raises: WeightsFileError: as `load_strictly`."""
    problems = {
        "missing": sorted(own.keys() - weights.keys()),
        "unexpected": sorted(weights.keys() - own.keys()),
        "of another shape": [
            f"{name} (expected {tuple(own[name].shape)}, got {tuple(weights[name].shape)})"
            for name in sorted(own.keys() & weights.keys())
            if own[name].shape != weights[name].shape
        ],
        "not finite": sorted(name for name, tensor in weights.items() if not torch.isfinite(tensor).all()),
    }
    found = [f"{len(names)} {problem}: {_some(names)}" for problem, names in problems.items() if names]
    if found:
        raise WeightsFileError(
            f"{shown}: expected {len(own)} finite tensors that fit the config, got {len(weights)} with "
            f"{'; '.join(found)}. Nothing was loaded; check that weights and config belong together."
        )


def _some(names: list[str]) -> str:
    rest = f", and {len(names) - _MAX_NUM_NAMES} more" if len(names) > _MAX_NUM_NAMES else ""
    return ", ".join(names[:_MAX_NUM_NAMES]) + rest
