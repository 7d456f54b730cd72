"""A backward pass in two parts: gradients of the inputs first, gradients of the parameters later.

Used by `tickets` when a caller asks for `inputs_first`: the server before this one in the chain can start its own
backward while this one still computes what nobody waits for (zero-bubble pipelines, arXiv 2401.10241).

No node of the graph runs twice in full. The first part runs the nodes between outputs and inputs and notes what arrives
at each node that also leads to parameters; the second part goes on from there. Sums are the same to the bit as in one
backward, because the same nodes get the same gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.autograd.graph import GradientEdge, Node

_Edge = tuple[Node, int]


class SplitBackward:
    """One backward over the graph between `outputs` and `inputs`.

    Args:
        outputs, gradients: where the backward starts, and with what.
        inputs: leaves whose gradients are wanted first, by name.
    """

    def __init__(
        self,
        outputs: Sequence[torch.Tensor],
        gradients: Sequence[torch.Tensor],
        inputs: Mapping[str, torch.Tensor],
    ) -> None:
        self._outputs = list(outputs)
        self._gradients = list(gradients)
        self._inputs = dict(inputs)
        self._late: list[tuple[_Edge, torch.Tensor]] = []  # edges that lead to parameters alone, with their gradients
        self._cuts: dict[Node, list[_Edge]] = {}
        self._arrived: dict[Node, tuple[torch.Tensor | None, ...]] = {}

    def input_gradients(self) -> dict[str, torch.Tensor]:
        """Run the first part: gradients by name of the inputs that one reaches."""
        graph = _Graph([_edge_of(output)[0] for output in self._outputs], list(self._inputs.values()))
        shared = graph.shared_edges()
        self._cuts = {node: [edge for edge in edges if edge not in shared] for node, edges in graph.cuts.items()}
        started = list(zip(self._outputs, self._gradients, strict=True))
        self._outputs, self._gradients = [], []
        early = [(output, gradient) for output, gradient in started if _edge_of(output)[0] in graph.between]
        self._late = [(_edge_of(output), grad) for output, grad in started if _edge_of(output)[0] not in graph.between]
        if not early:
            return {}
        hooks = [node.register_prehook(self._note(node)) for node, edges in self._cuts.items() if edges]
        wanted: list[Any] = [*self._inputs.values(), *(GradientEdge(*edge) for edge in shared)]
        try:
            found = torch.autograd.grad(
                [output for output, _ in early], wanted, [gradient for _, gradient in early],
                retain_graph=True, allow_unused=True,
            )  # fmt: skip
        finally:
            for hook in hooks:
                hook.remove()
        num_inputs = len(self._inputs)
        self._late += [
            (edge, grad) for edge, grad in zip(shared, found[num_inputs:], strict=True) if grad is not None
        ]
        return {
            name: grad for name, grad in zip(self._inputs, found[:num_inputs], strict=True) if grad is not None
        }

    def _note(self, node: Node) -> Callable[[Sequence[torch.Tensor | None]], None]:
        def arrive(gradients: Sequence[torch.Tensor | None]) -> None:
            self._arrived[node] = tuple(gradients)

        return arrive

    def accumulate_parameters(self) -> None:
        """Run the second part: parameters accumulate `.grad`, their hooks run as in an ordinary backward."""
        for node, gradients in self._arrived.items():
            edges = self._cuts[node]
            starts = [(index, gradient) for index, gradient in enumerate(gradients) if gradient is not None]
            found = torch.autograd.grad(
                [GradientEdge(node, index) for index, _ in starts],
                [GradientEdge(*edge) for edge in edges],
                [gradient for _, gradient in starts],
                allow_unused=True,
            )
            self._late += [(edge, grad) for edge, grad in zip(edges, found, strict=True) if grad is not None]
        self._arrived.clear()
        if self._late:
            late, self._late = self._late, []
            torch.autograd.backward([GradientEdge(*edge) for edge, _ in late], [gradient for _, gradient in late])


class _Graph:
    """The nodes between outputs and inputs, and the edges that leave them towards parameters.

    between: nodes from which an input can be reached.
    cuts: for each of them, its edges to nodes from which none can be.
    """

    def __init__(self, roots: Sequence[Node], inputs: Sequence[torch.Tensor]) -> None:
        leaves = {_edge_of(leaf)[0] for leaf in inputs}
        self.between: set[Node] = set(leaves)
        order = _children_first(roots)
        for node in order:
            if any(child in self.between for child, _ in _edges(node)):
                self.between.add(node)
        self.cuts: dict[Node, list[_Edge]] = {}
        for node in order:
            if node in self.between and node not in leaves:
                leaving = [edge for edge in _edges(node) if edge[0] not in self.between]
                if leaving:
                    self.cuts[node] = list(dict.fromkeys(leaving))

    def shared_edges(self) -> list[_Edge]:
        """Edges into nodes that several cut nodes lead to: their gradient is a sum, made in the first part."""
        leading: dict[Node, set[Node]] = {}
        for node, edges in self.cuts.items():
            for child, _ in edges:
                leading.setdefault(child, set()).add(node)
        edges = [edge for edges in self.cuts.values() for edge in edges if len(leading[edge[0]]) > 1]
        return list(dict.fromkeys(edges))


def _children_first(roots: Sequence[Node]) -> list[Node]:
    """All nodes reachable from the roots, each after everything that it leads to."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(root, False) for root in roots]
    while stack:
        node, is_done = stack.pop()
        if is_done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(child, False) for child, _ in _edges(node)]
    return order


def _edges(node: Node) -> list[_Edge]:
    return [(child, index) for child, index in node.next_functions if child is not None]


def _edge_of(tensor: torch.Tensor) -> _Edge:
    edge: Any = torch.autograd.graph.get_gradient_edge(tensor)
    return edge.node, edge.output_nr
