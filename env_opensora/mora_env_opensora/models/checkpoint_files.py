"""The files of a checkpoint folder: config.json, safetensors in one file or in shards, and training `.ckpt` files.

Readers return tensors on the CPU as stored; `pretrained` checks that they fit a model. Writers write a temporary file
and rename it, so that each file appears whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError  # type: ignore[attr-defined]  # defined in compiled code
from safetensors.torch import load_file, save_file
from torch import Tensor

from mora_env_opensora.models.errors import WeightsFileError

WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
INDEX_NAME = WEIGHTS_NAME + ".index.json"


def read_json(path: Path) -> dict[str, Any]:
    """Raises: WeightsFileError: the file is absent, unreadable, or not a JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsFileError(
            f"`{path.parent.name}`: expected a checkpoint folder with {path.name}, which does not exist; "
            "give the folder that contains it (for example 93x480p_i2v/ or vae/)"
        ) from None
    except (OSError, ValueError) as error:
        raise WeightsFileError(f"`{path.name}` cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise WeightsFileError(f"`{path.name}`: expected a JSON object, got {type(value).__name__}")
    return value


def read_safetensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of the folder's single weights file, or of the shards that its index names.

    Raises:
        WeightsFileError: neither exists, a shard is absent or broken, or the index and its shards disagree.
    """
    if (folder / WEIGHTS_NAME).is_file():
        return _read_file(folder / WEIGHTS_NAME)
    if not (folder / INDEX_NAME).is_file():
        raise WeightsFileError(f"`{folder.name}`: expected {WEIGHTS_NAME} or {INDEX_NAME}, found neither")
    shard_of = read_json(folder / INDEX_NAME).get("weight_map")
    if not isinstance(shard_of, dict) or not all(_is_plain_name(name) for name in shard_of.values()):
        raise WeightsFileError(f"`{INDEX_NAME}`: expected `weight_map` from tensor names to files of the same folder")
    weights: dict[str, Tensor] = {}
    for name in sorted(set(shard_of.values())):
        shard = _read_file(folder / name)
        promised = {key for key, value in shard_of.items() if value == name}
        if shard.keys() != promised:
            differing = ", ".join(sorted(shard.keys() ^ promised)[:8])
            raise WeightsFileError(f"shard `{name}`: expected the tensors that the index names; differing: {differing}")
        weights |= shard
    return weights


def read_training_checkpoint(path: Path, *, use_ema: bool = True) -> dict[str, Tensor]:
    """The autoencoder's weights in a `.ckpt` of upstream's trainer, without the loss network's tensors.

    Taken from the moving average (`ema_state_dict`, without its `module.` prefix) if it exists, else from
    `state_dict["gen_model"]`, else from `state_dict`.

    Raises:
        WeightsFileError: not a torch file that loads without running code, or without any of these dictionaries.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # broken and foreign files make torch raise many types
        raise WeightsFileError(f"`{path.name}` cannot be read as tensors only: {error}") from None
    weights = _choose_weights(content, use_ema)
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise WeightsFileError(f"`{path.name}`: expected `ema_state_dict` or `state_dict` with tensors inside")
    return {key: tensor for key, tensor in weights.items() if "loss" not in key}


def _choose_weights(content: Any, use_ema: bool) -> Any:
    if not isinstance(content, Mapping):
        return None
    ema = content.get("ema_state_dict")
    if use_ema and isinstance(ema, Mapping) and ema:
        return {key.removeprefix("module."): tensor for key, tensor in ema.items()}
    state = content.get("state_dict")
    return state["gen_model"] if isinstance(state, Mapping) and "gen_model" in state else state


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(partial, path)


def write_safetensors(folder: Path, weights: Mapping[str, Tensor], max_shard_bytes: int | None) -> None:
    """Write one file, or an index and shards of at most `max_shard_bytes` (a larger tensor gets its own shard)."""
    shards = _split(weights, max_shard_bytes)
    if len(shards) == 1:
        _write_file(folder / WEIGHTS_NAME, shards[0])
        (folder / INDEX_NAME).unlink(missing_ok=True)
        return
    shard_of: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = WEIGHTS_NAME.replace(".safetensors", f"-{number:05d}-of-{len(shards):05d}.safetensors")
        _write_file(folder / name, shard)
        shard_of |= dict.fromkeys(shard, name)
    total = sum(tensor.nbytes for tensor in weights.values())
    write_json(folder / INDEX_NAME, {"metadata": {"total_size": total}, "weight_map": shard_of})
    (folder / WEIGHTS_NAME).unlink(missing_ok=True)  # readers would prefer an old single file to the shards


def _split(weights: Mapping[str, Tensor], limit: int | None) -> list[dict[str, Tensor]]:
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for key, tensor in weights.items():
        if limit is not None and shards[-1] and size + tensor.nbytes > limit:
            shards.append({})
            size = 0
        shards[-1][key] = tensor
        size += tensor.nbytes
    return shards


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise WeightsFileError(f"expected weights file `{path.name}`, which does not exist") from None
    except (OSError, SafetensorError) as error:
        raise WeightsFileError(f"`{path.name}` is not a whole safetensors file: {error}") from None


def _write_file(path: Path, weights: Mapping[str, Tensor]) -> None:
    partial = path.with_name(path.name + ".partial")
    # Contiguous copies: safetensors refuses views and shared memory.
    save_file({key: tensor.detach().cpu().contiguous() for key, tensor in weights.items()}, partial, {"format": "pt"})
    os.replace(partial, path)


def _is_plain_name(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors")
