"""Copying a file of weights into a module in place: the parameters keep their memory, which ZeRO has packed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from mora_runtime.errors import CheckpointError
from safetensors import SafetensorError, safe_open

_NUM_SHOWN = 3  # names in an error


@torch.no_grad()
def copy_tensors(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Copy every tensor of a safetensors file into the module's tensor of the same name, rounded to its dtype.

    Args:
        state: the module's tensors by the names that the file has.

    Raises:
        CheckpointError: the file cannot be read, or has other names or shapes than `state`; nothing is copied then.
    """
    try:
        with safe_open(path, framework="pt") as file:
            _check(path, {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}, state)  # noqa: SIM118
            for name, tensor in state.items():
                tensor.copy_(file.get_tensor(name))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{shown(path)}: cannot be read ({error})") from None


def _check(path: Path, found: dict[str, tuple[int, ...]], state: Mapping[str, torch.Tensor]) -> None:
    faults = [
        *(f"`{name}` is missing" for name in state if name not in found),
        *(f"`{name}` is unknown" for name in found if name not in state),
        *(
            f"`{name}`: expected shape {tuple(state[name].shape)}, got {shape}"
            for name, shape in found.items()
            if name in state and shape != tuple(state[name].shape)
        ),
    ]
    if faults:
        more = f"; and {len(faults) - _NUM_SHOWN} more" if len(faults) > _NUM_SHOWN else ""
        raise CheckpointError(
            f"{shown(path)}: its weights do not fit the loaded model ({'; '.join(faults[:_NUM_SHOWN])}{more}); use "
            "a checkpoint of the same configuration"
        )


def shown(path: Path) -> str:
    """The last parts of the path: checkpoint, role, part and file."""
    return "/".join(path.parts[-4:])
