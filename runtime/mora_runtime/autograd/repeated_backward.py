"""A backward in two parts over blocks with gradient checkpointing; used by `split_backward`.

A checkpointed block (`torch.utils.checkpoint` with use_reentrant=False) saves only its inputs, and a backward computes
the block again when it comes to its first node. To cut inside such blocks would mean to keep a gradient for each layer
of every block until the second part, which is the memory that checkpointing saves. So both parts run the whole way:
the first for the inputs, the second for the parameters. Each computes every block again once and has the tensors of
one block at a time in memory. Compared with one backward, the second part repeats a forward, and the backward through
the activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.utils.checkpoint
from torch.autograd.graph import Node

_SAVED = "_raw_saved_"  # prefix of the attributes of a node that contain what it saved
_Holder: Any = getattr(torch.utils.checkpoint, "_Holder", ())  # what a checkpointed block saves in place of a tensor


def checkpointed_nodes(nodes: Sequence[Node]) -> list[Node]:
    """The nodes of checkpointed blocks among these that save tensors.

    Older versions of torch do not tell, so the list is empty there.
    """
    return [node for node in nodes if any(True for _ in _holders(node))]


class RepeatedBackward:
    """One backward, run once for the inputs and once for the parameters.

    Args:
        outputs, gradients: where the backward starts, and with which gradients.
        inputs: leaves whose gradients are wanted first, by name.
        nodes: all nodes of the graph; checkpointed: those from `checkpointed_nodes`.
    """

    def __init__(
        self,
        outputs: Sequence[torch.Tensor],
        gradients: Sequence[torch.Tensor],
        inputs: Mapping[str, torch.Tensor],
        nodes: Sequence[Node],
        checkpointed: Sequence[Node],
    ) -> None:
        self._outputs, self._gradients = list(outputs), list(gradients)
        self._inputs = dict(inputs)
        self._checkpointed = list(checkpointed)
        leaves = [node.variable for node in nodes if hasattr(node, "variable")]
        self._parameters = [leaf for leaf in leaves if not any(leaf is each for each in inputs.values())]

    def input_gradients(self) -> dict[str, torch.Tensor]:
        """Run the first part; returns gradients by name, without inputs that no gradient reaches."""
        hooks = [node.register_hook(_drop_after(node)) for node in self._checkpointed]
        try:
            found = torch.autograd.grad(
                self._outputs, list(self._inputs.values()), self._gradients, retain_graph=True, allow_unused=True
            )
        finally:
            for hook in hooks:
                hook.remove()
        checkpointed, self._checkpointed = self._checkpointed, []
        for node in checkpointed:
            _drop_recomputed(node)  # those that lead only to parameters did not run
        return {name: grad for name, grad in zip(self._inputs, found, strict=True) if grad is not None}

    def accumulate_parameters(self) -> None:
        """Run the second part: parameters accumulate `.grad`, and their hooks run as in an ordinary backward."""
        outputs, self._outputs = self._outputs, []
        if outputs and self._parameters:
            torch.autograd.backward(outputs, self._gradients, inputs=self._parameters)


def _drop_after(node: Node) -> Callable[..., None]:
    def drop(*_: object) -> None:
        _drop_recomputed(node)

    return drop


def _drop_recomputed(node: Node) -> None:
    """Free recomputed tensors that the node did not take, because it computed only some of its gradients."""
    for holder in _holders(node):
        holder.handles.clear()


def _holders(node: Node) -> Iterator[Any]:
    for name in _saved_names(type(node)):
        saved = getattr(node, name)
        for each in saved if isinstance(saved, list | tuple) else (saved,):
            packed = getattr(each, "data", None)
            if isinstance(packed, _Holder):
                yield packed


@lru_cache(maxsize=1024)
def _saved_names(kind: type[Node]) -> tuple[str, ...]:
    return tuple(name for name in dir(kind) if name.startswith(_SAVED))
