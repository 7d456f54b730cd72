"""A backward pass in two parts: gradients of the inputs first, gradients of the parameters later.

`graph_table` uses it for calls with `inputs_first`: the previous server in the chain can start its own backward while
this one still computes gradients that no process waits for (zero-bubble pipelines, arXiv 2401.10241).

No node of the graph runs twice in full. The first part runs the nodes between outputs and inputs and records the
gradient that arrives at each node that also leads to parameters; the second part continues from these. Sums are
bit-identical to those of one backward, because the same nodes get the same gradients.

A graph with checkpointed blocks is not cut (`repeated_backward`).

Before torch 2.5 a backward cannot start at a node inside a graph. There the first part is the whole backward.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.autograd.graph import GradientEdge, Node

from mora_runtime.autograd.repeated_backward import RepeatedBackward, checkpointed_nodes

_Edge = tuple[Node, int]
CAN_SPLIT = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 5)


class SplitBackward:
    """One backward over the graph between `outputs` and `inputs`.

    Args:
        outputs, gradients: where the backward starts, and with which gradients.
        inputs: leaves whose gradients are wanted first, by name.
    """

    def __init__(
        self,
        outputs: Sequence[torch.Tensor],
        gradients: Sequence[torch.Tensor],
        inputs: Mapping[str, torch.Tensor],
    ) -> None:
        self._inputs = dict(inputs)
        if not CAN_SPLIT:
            self._whole = list(outputs), list(gradients)
            return
        order = _children_first([_edge_of(output)[0] for output in outputs])
        checkpointed = checkpointed_nodes(order)
        self._repeated: RepeatedBackward | None = None
        if checkpointed:
            self._repeated = RepeatedBackward(outputs, gradients, inputs, order, checkpointed)
            return
        self._graph = _Graph(order, list(inputs.values()))
        self._early: list[tuple[torch.Tensor, torch.Tensor]] = []
        # gradients that arrive at edges that lead only to parameters, in the order of the backward
        self._late: list[tuple[_Edge, torch.Tensor]] = []
        self._arrived: dict[Node, list[tuple[int, torch.Tensor]]] = {}
        for output, gradient in zip(outputs, gradients, strict=True):
            edge = _edge_of(output)
            if edge[0] in self._graph.between:
                self._early.append((output, gradient))
            else:
                self._late.append((edge, gradient))

    def input_gradients(self) -> dict[str, torch.Tensor]:
        """Run the first part; returns gradients by name, without inputs that no gradient reaches."""
        if not CAN_SPLIT:
            return self._run_whole()
        if self._repeated is not None:
            return self._repeated.input_gradients()
        early, self._early = self._early, []
        if not early:
            return {}
        hooks = [node.register_prehook(self._note(node)) for node in self._graph.cuts]
        wanted: list[Any] = [*self._inputs.values(), *(GradientEdge(*edge) for edge in self._graph.sums)]
        try:
            found = torch.autograd.grad(
                [output for output, _ in early], wanted, [gradient for _, gradient in early],
                retain_graph=True, allow_unused=True,
            )  # fmt: skip
        finally:
            for hook in hooks:
                hook.remove()
        summed = zip(self._graph.sums, found[len(self._inputs) :], strict=True)
        self._late += [(edge, gradient) for edge, gradient in summed if gradient is not None]
        return {name: grad for name, grad in zip(self._inputs, found, strict=False) if grad is not None}

    def _run_whole(self) -> dict[str, torch.Tensor]:
        (outputs, gradients), self._whole = self._whole, ([], [])
        before = {name: leaf.grad for name, leaf in self._inputs.items()}
        try:
            for leaf in self._inputs.values():
                leaf.grad = None
            torch.autograd.backward(outputs, gradients)
            return {name: leaf.grad for name, leaf in self._inputs.items() if leaf.grad is not None}
        finally:
            for name, leaf in self._inputs.items():
                leaf.grad = before[name]

    def _note(self, node: Node) -> Callable[[Sequence[torch.Tensor | None]], None]:
        def arrive(gradients: Sequence[torch.Tensor | None]) -> None:
            self._arrived[node] = [(index, grad) for index, grad in enumerate(gradients) if grad is not None]

        return arrive

    def accumulate_parameters(self) -> None:
        """Run the second part: parameters accumulate `.grad`, and their hooks run as in an ordinary backward."""
        if not CAN_SPLIT:
            return
        if self._repeated is not None:
            self._repeated.accumulate_parameters()
            return
        arrived, self._arrived = self._arrived, {}
        for node, gradients in arrived.items():
            edges = self._graph.cuts[node]
            found = torch.autograd.grad(
                [GradientEdge(node, index) for index, _ in gradients],
                [GradientEdge(*edge) for edge in edges],
                [gradient for _, gradient in gradients],
                allow_unused=True,
            )
            self._late += [(edge, grad) for edge, grad in zip(edges, found, strict=True) if grad is not None]
        late, self._late = self._late, []
        if late:
            torch.autograd.backward([GradientEdge(*edge) for edge, _ in late], [gradient for _, gradient in late])


class _Graph:
    """The nodes between outputs and inputs, and the edges from them to parameters, where the graph can be cut.

    order: all nodes, each after all its descendants.

    between: nodes that the first part runs.
    cuts: node -> its edges to nodes that only this node leads to. The second part runs this node again, only for these
        edges.
    sums: edges into nodes behind the cuts that several paths reach. Their gradients are sums, which the first part
        computes, so that the terms are added in the order of an ordinary backward.
    """

    def __init__(self, order: Sequence[Node], inputs: Sequence[torch.Tensor]) -> None:
        ends = {_edge_of(leaf)[0] for leaf in inputs}
        inputs_alone = set(ends)
        while True:
            self.between = _leading_to(ends, order)
            self.cuts = self._cut(order, ends)
            meetings = _meetings(self.cuts)
            if not meetings:
                break
            ends |= meetings
        self.between |= inputs_alone
        sums = ends - inputs_alone - self.between
        edges = [edge for node in order if node in self.between for edge in _edges(node) if edge[0] in sums]
        self.sums: list[_Edge] = list(dict.fromkeys(edges))

    def _cut(self, order: Sequence[Node], ends: set[Node]) -> dict[Node, list[_Edge]]:
        """For each node in `between`, its edges to nodes from which no end can be reached."""
        cuts: dict[Node, list[_Edge]] = {}
        for node in order:
            leaving = [edge for edge in _edges(node) if edge[0] not in self.between and edge[0] not in ends]
            if node in self.between and leaving:
                cuts[node] = leaving
        return cuts


def _leading_to(ends: set[Node], order: Sequence[Node]) -> set[Node]:
    """Nodes from which an end can be reached over at least one edge; `order` lists children first."""
    leading: set[Node] = set()
    for node in order:
        if any(child in ends or child in leading for child, _ in _edges(node)):
            leading.add(node)
    return leading


def _meetings(cuts: Mapping[Node, Sequence[_Edge]]) -> set[Node]:
    """The first nodes behind the cuts at which paths from several cut edges meet."""
    num_ways: Counter[Node] = Counter()
    for edges in cuts.values():
        for target, _ in edges:
            num_ways.update(_children_first([target]))
    entered = [target for edges in cuts.values() for target, _ in edges]
    entered += [child for node, ways in num_ways.items() if ways == 1 for child, _ in _edges(node)]
    return {node for node in entered if num_ways[node] > 1}


def _children_first(roots: Sequence[Node]) -> list[Node]:
    """All nodes reachable from the roots, each after all its descendants."""
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
    return [(child, number) for child, number in node.next_functions if child is not None]


def _edge_of(tensor: torch.Tensor) -> _Edge:
    edge: Any = torch.autograd.graph.get_gradient_edge(tensor)
    return edge.node, edge.output_nr
