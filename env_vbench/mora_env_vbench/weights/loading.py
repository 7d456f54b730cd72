"""Weights put into a network, after their names and shapes were compared with it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from mora_env_vbench.weights.checkpoint import open_checkpoint
from mora_env_vbench.weights.errors import WeightsRefused
from mora_env_vbench.weights.tensor_file import Renamed, TensorFile

_Network = TypeVar("_Network", bound=nn.Module)
Shapes = Mapping[str, tuple[int, ...]]


def load_network(
    path: Path,
    build: Callable[[Shapes], _Network],
    *,
    within: str = "",
    ignored: Collection[str] = (),
) -> _Network:
    """A network with the weights of a file, in float32 on the CPU, in evaluation mode and without gradients.

    Args:
        build: makes the network from the shapes of the tensors, which tell its sizes. It runs on the meta device, so
            every buffer of the network must be in the file.
        within: what the names of the network's tensors begin with in the file, such as `state_dict.`; tensors without
            it belong to other things. A file whose names all lack it has the network's names at its top.
        ignored: last parts of the names of tensors that the network does not use, such as `attn_mask`.

    Raises:
        WeightsRefused: the file cannot be read, or has another layout than the network.
    """
    with open_checkpoint(path) as file:
        chosen = _inside(file, within, ignored)
        shapes = {name: chosen.shape_of(name) for name in chosen}
        try:
            with torch.device("meta"):
                network = build(shapes)
        except (KeyError, IndexError, ValueError, RuntimeError, ZeroDivisionError) as error:
            raise _another_layout(path, f"no sizes follow from its {len(shapes)} tensors ({error})") from error
        _check(network, shapes, path)
        state = {}
        for name, own in network.state_dict().items():
            tensor = chosen[name].to(own.dtype).contiguous()
            if not bool(tensor.isfinite().all()):
                raise WeightsRefused(f"{path}: `{name}` has numbers that are not finite; fetch the file again")
            state[name] = tensor
        network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def _inside(file: TensorFile, within: str, ignored: Collection[str]) -> TensorFile:
    prefix = within if any(name.startswith(within) for name in file) else ""
    names = {name.removeprefix(prefix): name for name in file if name.startswith(prefix)}
    return Renamed(file, {name: full for name, full in names.items() if name.rpartition(".")[2] not in ignored})


def _check(network: nn.Module, shapes: Shapes, path: Path) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    missing, unknown = expected.keys() - shapes.keys(), shapes.keys() - expected.keys()
    other = sorted(name for name in expected.keys() & shapes.keys() if expected[name] != shapes[name])
    if missing:
        raise _another_layout(path, f"it lacks {_some(missing)}")
    if unknown:
        raise _another_layout(path, f"it also has {_some(unknown)}")
    if other:
        name = other[0]
        raise _another_layout(path, f"`{name}` should be {expected[name]}, is {shapes[name]}")


def _some(names: Collection[str]) -> str:
    first, more = sorted(names)[0], len(names) - 1
    return f"`{first}`" + (f" and {more} more" if more else "")


def _another_layout(path: Path, difference: str) -> WeightsRefused:
    return WeightsRefused(f"{path}: its weights have another layout than this network: {difference}")


def num_blocks(shapes: Shapes, prefix: str) -> int:
    """How many numbered blocks there are below a name, such as `blocks.`.

    Raises:
        ValueError: there is none, or a number is missing.
    """
    numbers = {name.removeprefix(prefix).split(".")[0] for name in shapes if name.startswith(prefix)}
    if not numbers or numbers != {str(number) for number in range(len(numbers))}:
        raise ValueError(f"expected blocks numbered from 0 below `{prefix}`")
    return len(numbers)
