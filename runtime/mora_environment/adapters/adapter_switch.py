"""LoRA adapters that are put on a model for some calls and taken off for others.

They are hooks of the layers that they adapt, so the model without them computes what it computed before, to the bit.
With them it computes what peft's layers compute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from mora_runtime.errors import CheckpointError
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of inputs and a matrix


@dataclass(frozen=True)
class _Layer:
    """The adapter of one layer, in host memory."""

    layer: torch.nn.Module
    down: torch.Tensor  # (rank, in, ...)
    up: torch.Tensor  # (out, rank, ...)


class AdapterSwitch:
    """Puts at most one set of adapters on a model. Adapters that the model was loaded with are off meanwhile."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self._choices: dict[str, tuple[float, list[_Layer]]] = {}  # alpha, layers
        self._hooks: list[RemovableHandle] = []
        self._used: tuple[str | None, float] = (None, 1.0)

    @property
    def names(self) -> list[str]:
        """The names of all adapters that were added."""
        return list(self._choices)

    def add(self, name: str, tensors: Mapping[str, torch.Tensor], alpha: float) -> None:
        """Take in adapters for later.

        Args:
            tensors: `LAYER.lora_A.weight` and `LAYER.lora_B.weight` of each layer.

        Raises:
            CheckpointError: a tensor does not fit the model, or has no counterpart.
        """
        found = []
        for key, down in tensors.items():
            if key.endswith(_DOWN):
                up = tensors.get(key.removesuffix(_DOWN) + _UP)
                found.append(self._layer(name, key.removesuffix(_DOWN), down, up))
            elif not (key.endswith(_UP) and key.removesuffix(_UP) + _DOWN in tensors):
                raise CheckpointError(
                    f"adapters `{name}`: unknown tensor `{key}`; expected LAYER{_DOWN} and LAYER{_UP}"
                )
        self._choices[name] = (alpha, found)

    def _layer(self, name: str, path: str, down: torch.Tensor, up: torch.Tensor | None) -> _Layer:
        place = f"adapters `{name}`: layer `{path}`"
        if up is None:
            raise CheckpointError(f"{place}: has {_DOWN[1:]} but no {_UP[1:]}")
        try:
            layer = self._module.get_submodule(path)
        except AttributeError:
            raise CheckpointError(f"{place}: the model has no such layer; these adapters are for another one") from None
        base = _base_of(layer)
        if not isinstance(base, (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)):
            raise CheckpointError(f"{place}: is {type(base).__name__}; expected a linear layer or a convolution")
        if getattr(base, "groups", 1) != 1 or getattr(base, "padding_mode", "zeros") != "zeros":
            raise CheckpointError(f"{place}: is a convolution with groups or padding by values, which takes no adapter")
        weight, rank = base.weight, down.shape[0]
        expected = ((rank, *weight.shape[1:]), (weight.shape[0], rank, *[1] * (weight.ndim - 2)))
        if (tuple(down.shape), tuple(up.shape)) != expected:
            raise CheckpointError(
                f"{place}: expected the shapes {expected[0]} and {expected[1]}, got {tuple(down.shape)} and "
                f"{tuple(up.shape)}; these adapters are for another model"
            )
        return _Layer(layer, down.to(weight.dtype), up.to(weight.dtype))

    def use(self, name: str | None, scale: float) -> None:
        """Put these adapters on the model, in place of all others; None restores what it was loaded with."""
        if (name, scale) == self._used:
            return
        alpha, layers = (0.0, []) if name is None else self._choices[name]
        hooks = [_added(each, scale * alpha) for each in layers]  # may lack memory, so before anything is changed
        for hook in self._hooks:
            hook.remove()
        if (name is None) != (self._used[0] is None):
            _enable_loaded(self._module, name is None)
        self._hooks = [each.layer.register_forward_hook(hook) for each, hook in zip(layers, hooks, strict=True)]
        self._used = (name, scale)


def _added(adapter: _Layer, alpha: float) -> Callable[[torch.nn.Module, tuple[Any, ...], torch.Tensor], torch.Tensor]:
    """Return a hook that adds what an adapter computes to what its layer computes."""
    base = _base_of(adapter.layer)
    device, scaling = base.weight.device, alpha / adapter.down.shape[0]
    down, up, (project, expand) = adapter.down.to(device), adapter.up.to(device), _products_of(base)

    def add(layer: torch.nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        inner = project(inputs[0].to(down.dtype), down)
        return (output + expand(inner, up) * scaling).to(output.dtype)

    return add


def _products_of(base: Any) -> tuple[Product, Product]:
    """Return how a layer of this class applies the two matrices of its adapter."""
    if isinstance(base, torch.nn.Linear):
        return functional.linear, functional.linear
    convolve: Any = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[base.weight.ndim - 2]
    return partial(convolve, stride=base.stride, padding=base.padding, dilation=base.dilation), convolve


def _base_of(layer: torch.nn.Module) -> Any:
    """Return the layer itself, without the adapter that the model was loaded with."""
    return getattr(layer, "base_layer", layer)


def _enable_loaded(module: torch.nn.Module, is_on: bool) -> None:
    """Switch the adapters that the model was loaded with on or off."""
    layers: list[Any] = [layer for layer in module.modules() if hasattr(layer, "base_layer")]  # classes of peft
    for layer in layers:
        layer.enable_adapters(is_on)
    if layers:
        module.requires_grad_(False)  # switching them on makes them train
