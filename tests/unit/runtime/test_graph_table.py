"""A kept graph allows one backward, by the peer that got its ticket."""

import gc
import weakref

import pytest
import torch
from mora_runtime.autograd.graph_table import Graph, GraphTable
from mora_runtime.autograd.split_backward import CAN_SPLIT
from mora_runtime.errors import BadArgument, TicketSpent, TooManyTickets, UnknownTicket
from mora_runtime.limits import MAX_NUM_TICKETS


def keep(table: GraphTable, owner: str = "a") -> tuple[int, torch.Tensor]:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    return table.keep(owner, Graph({"x": x}, {"y": x * x, "z": x.sum()}), 100), x


def test_backward_gives_the_gradients_of_the_inputs_and_spends_the_ticket() -> None:
    table = GraphTable()
    number, _ = keep(table)
    gradients = table.backward("a", number, {"y": torch.ones(2), "z": torch.tensor(10.0)})
    assert gradients["x"].tolist() == [12.0, 14.0]
    assert len(table) == 0
    with pytest.raises(TicketSpent, match="run the forward again"):
        table.backward("a", number, {"z": torch.tensor(1.0)})


def test_an_output_without_a_gradient_counts_as_unused() -> None:
    table = GraphTable()
    number, _ = keep(table)
    assert table.backward("a", number, {"z": torch.tensor(1.0)})["x"].tolist() == [1.0, 1.0]


def test_an_input_that_no_gradient_reaches_is_absent() -> None:
    table = GraphTable()
    x, unused = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    number = table.keep("a", Graph({"x": x, "unused": unused}, {"y": x * 2}), 0)
    assert set(table.backward("a", number, {})) == {"x"}


def test_only_a_single_scalar_output_needs_no_gradient() -> None:
    table = GraphTable()
    number, _ = keep(table)
    with pytest.raises(BadArgument, match="only a single scalar output needs none"):
        table.backward("a", number, {})
    x = torch.tensor(3.0, requires_grad=True)
    assert table.backward("a", table.keep("a", Graph({"x": x}, {"loss": x * x}), 0), {})["x"].item() == 6.0


def test_a_ticket_of_another_peer_is_unknown_and_stays_valid_for_its_owner() -> None:
    table = GraphTable()
    number, _ = keep(table)
    with pytest.raises(UnknownTicket, match="keeps no ticket 1 for this caller"):
        table.backward("b", number, {"z": torch.tensor(1.0)})
    table.drop("b", [number])
    table.drop_all_of("b")
    assert table.backward("a", number, {"z": torch.tensor(1.0)})["x"].tolist() == [1.0, 1.0]


def test_a_ticket_that_was_never_issued_is_unknown() -> None:
    with pytest.raises(UnknownTicket):
        GraphTable().backward("a", 1, {})


@pytest.mark.parametrize(
    ("grads", "text"),
    [
        ({"w": torch.ones(2)}, "gradient for `w`: no such differentiable output; expected one of"),
        ({"y": torch.ones(3)}, r"gradient for `y`: expected shape \[2\], got \[3\]"),
        ({"y": torch.ones(())}, r"expected shape \[2\], got \[\]"),
    ],
)
def test_an_invalid_gradient_is_refused_and_the_graph_freed(grads: dict[str, torch.Tensor], text: str) -> None:
    table = GraphTable()
    number, _ = keep(table)
    with pytest.raises(BadArgument, match=text):
        table.backward("a", number, grads)
    assert len(table) == 0


def test_a_gradient_for_what_was_returned_without_a_graph_says_so() -> None:
    table = GraphTable()
    number = table.keep("a", Graph({}, {}), 0)
    with pytest.raises(
        BadArgument, match="no such differentiable output; the call returned no tensor that has a graph"
    ):
        table.backward("a", number, {"y": torch.ones(2)})


def test_a_gradient_of_another_dtype_is_converted_to_that_of_the_output() -> None:
    table = GraphTable()
    number, _ = keep(table)
    gradients = table.backward("a", number, {"y": torch.ones(2, dtype=torch.float64)})
    assert gradients["x"].dtype == torch.float32


def test_dropping_frees_the_graph() -> None:
    table = GraphTable()
    number, x = keep(table)
    gone = weakref.ref(x)
    del x
    gc.collect()
    assert gone() is not None
    table.drop("a", [number])
    assert gone() is None
    with pytest.raises(TicketSpent):
        table.backward("a", number, {})


def test_all_graphs_of_a_peer_that_left_are_freed_and_none_of_others() -> None:
    table = GraphTable()
    for _ in range(3):
        keep(table, "a")
    kept, _ = keep(table, "b")
    table.drop_all_of("a")
    assert len(table) == 1
    assert table.backward("b", kept, {"z": torch.tensor(1.0)})


def test_a_full_table_is_refused_before_the_forward() -> None:
    table = GraphTable()
    numbers = [keep(table)[0] for _ in range(MAX_NUM_TICKETS)]
    with pytest.raises(TooManyTickets, match=f"{MAX_NUM_TICKETS} graphs wait for their backward"):
        table.check_room()
    table.drop("a", numbers[:1])
    table.check_room()


def test_memory_of_graphs_is_counted_and_limited_but_one_graph_is_always_allowed() -> None:
    table = GraphTable(budget_nbytes=250)
    first, second = keep(table)[0], keep(table)[0]
    assert table.nbytes == 200
    with pytest.raises(
        TooManyTickets, match="2 graphs of a keep 200 bytes, one more takes up to 100, the limit is 250"
    ):
        table.check_room()
    table.drop("a", [first])
    table.check_room()
    table.backward("a", second, {"z": torch.tensor(1.0)})
    assert table.nbytes == 0
    small = GraphTable(budget_nbytes=1)
    small.check_room()
    keep(small)
    with pytest.raises(TooManyTickets):
        small.check_room()


def test_a_graph_can_be_recomputed_instead_of_kept() -> None:
    weight = torch.nn.Parameter(torch.tensor([2.0, 3.0]))

    def again() -> Graph:
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        return Graph({"x": x}, {"y": x * weight})

    table = GraphTable()
    assert table.backward("a", table.keep("a", again, 8), {"y": torch.ones(2)})["x"].tolist() == [2.0, 3.0]
    assert weight.grad is not None
    assert weight.grad.tolist() == [1.0, 2.0]


@pytest.mark.skipif(not CAN_SPLIT, reason="before torch 2.5 the gradients of parameters come with those of the inputs")
def test_gradients_of_parameters_can_come_later_in_the_order_of_the_backwards() -> None:
    table = GraphTable()
    weight = torch.nn.Parameter(torch.tensor([2.0, 3.0]))
    for factor in (1.0, 10.0):
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        number = table.keep("a", Graph({"x": x}, {"y": x * weight}), 0)
        found = table.backward("a", number, {"y": torch.full((2,), factor)}, inputs_first=True)
        assert found["x"].tolist() == [2.0 * factor, 3.0 * factor]
        expected = None if factor == 1.0 else [1.0, 2.0]
        assert (None if weight.grad is None else weight.grad.tolist()) == expected, "one backward may wait, no more"
    assert table.has_late
    table.finish_late()
    assert not table.has_late
    assert weight.grad is not None
    assert weight.grad.tolist() == [11.0, 22.0]
