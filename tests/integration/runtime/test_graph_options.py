"""Options of a backward in another process: at once, input gradients first, recomputed, within a budget."""

import pytest
import torch
from echo_server import make_module
from eventually import eventually
from mora_runtime import Client, Reply, Session
from mora_runtime.errors import TooManyTickets
from server_starter import Starter

DEADLINE_S = 10
X, SCALE, G = (torch.randn(*shape, generator=torch.Generator().manual_seed(7)) for shape in ((4, 6), (5,), (4, 3)))


def forward(client: Client) -> Reply:
    """Forward of the module with two heads, with a gradient for x."""
    return client.call("heads", "forward", {"inputs": [X, SCALE]}, grad=["inputs.0"], deadline_s=DEADLINE_S)


def parameters_gradients(client: Client) -> dict[str, torch.Tensor]:
    """The parameter gradients that the server has accumulated since the last call of this function."""
    values = client.call("echo", "gradients", {}, deadline_s=DEADLINE_S).values
    return {name: value.tensor().clone() for name, value in values.items() if value is not None}


def assert_as_here(x_gradient: torch.Tensor, of_parameters: dict[str, torch.Tensor], *, num_backwards: int = 1) -> None:
    """Assert that the gradients for G in the second output equal those of the same module in this process."""
    module = make_module()
    for _ in range(num_backwards):
        x = X.clone().requires_grad_(True)
        module(x, SCALE)[1].backward(G)
    here = {name.replace(".", "_"): p.grad for name, p in module.named_parameters() if p.grad is not None}
    assert x.grad is not None
    assert torch.equal(x_gradient, x.grad)
    assert of_parameters.keys() == here.keys()
    assert all(torch.equal(of_parameters[name], here[name]) for name in here)


@pytest.fixture
def clean(client: Client) -> Client:
    parameters_gradients(client)  # which another test has left
    return client


@pytest.fixture
def recomputing(start: Starter, session: Session) -> Client:
    """A server that stores inputs instead of graphs."""
    start("again.0", recompute=True)
    return session.connect("again.0", deadline_s=DEADLINE_S)


@pytest.mark.parametrize("inputs_first", [False, True])
def test_forward_and_backward_in_one_message(clean: Client, inputs_first: bool) -> None:
    arguments = {"inputs": [X, SCALE]}
    reply = clean.submit(
        "heads",
        "forward",
        arguments,
        grad=["inputs.0"],
        output_grads={"outputs.1": G},
        inputs_first=inputs_first,
        deadline_s=DEADLINE_S,
    ).result()
    assert reply.ticket is None
    assert clean.ping(DEADLINE_S).num_tickets == 0
    assert_as_here(reply.gradients["inputs.0"].tensor(), parameters_gradients(clean))


def test_later_gradients_of_parameters_are_complete_for_every_reader(clean: Client) -> None:
    for _ in range(3):
        reply = forward(clean)
        assert reply.ticket is not None
        found = clean.backward(reply.ticket, {"outputs.1": G}, inputs_first=True, deadline_s=DEADLINE_S)
    assert_as_here(found["inputs.0"].tensor(), parameters_gradients(clean), num_backwards=3)


def test_all_results_are_the_same_over_zeromq_without_the_doorbell(clean: Client, session: Session) -> None:
    other = session.connect("echo.0", deadline_s=DEADLINE_S, doorbell=False)
    reply = forward(other)
    assert reply.ticket is not None
    found = other.backward(reply.ticket, {"outputs.1": G}, deadline_s=DEADLINE_S)
    assert_as_here(found["inputs.0"].tensor(), parameters_gradients(other))
    large = torch.arange(1 << 18, dtype=torch.float32)  # in a slot, unlike the others
    added = other.call("echo", "add_one", {"x": large}, deadline_s=DEADLINE_S).values["value"].tensor()
    assert torch.equal(added, large + 1)


def test_a_recomputing_server_keeps_only_the_inputs_and_gives_the_same_gradients(recomputing: Client) -> None:
    reply = forward(recomputing)
    kept = X.nbytes + SCALE.nbytes
    assert eventually(lambda: recomputing.ping(DEADLINE_S).activation_nbytes, kept) == kept
    assert reply.ticket is not None
    found = recomputing.backward(reply.ticket, {"outputs.1": G}, deadline_s=DEADLINE_S)
    assert_as_here(found["inputs.0"].tensor(), parameters_gradients(recomputing))
    assert eventually(lambda: recomputing.ping(DEADLINE_S).activation_nbytes, 0) == 0


def test_a_recomputed_forward_draws_the_same_random_numbers(recomputing: Client) -> None:
    x = torch.ones(10_000)
    replies = [recomputing.call("echo", "dropped", {"x": x}, grad=["x"], deadline_s=DEADLINE_S) for _ in range(2)]
    outputs = [reply.values["y"].tensor() for reply in replies]
    assert not torch.equal(*outputs)
    for reply, y in zip(replies, outputs, strict=True):
        assert reply.ticket is not None
        found = recomputing.backward(reply.ticket, {"y": torch.ones(10_000)}, deadline_s=DEADLINE_S)
        assert torch.equal(found["x"].tensor(), y)  # where dropout let x through, its factor is the gradient
    alone = recomputing.call("echo", "dropped", {"x": x}, deadline_s=DEADLINE_S).values["y"].tensor()
    assert not any(torch.equal(alone, y) for y in outputs)  # recomputing has not turned the generator back


def test_graphs_beyond_the_budget_are_refused_before_they_are_computed(start: Starter, session: Session) -> None:
    start("lean.0", activation_budget_nbytes=1)
    lean = session.connect("lean.0", deadline_s=DEADLINE_S)
    held = forward(lean)  # one is always possible, or nothing would ever go forward
    assert eventually(lambda: lean.ping(DEADLINE_S).activation_nbytes > 0, True)
    with pytest.raises(TooManyTickets, match="activation_nbytes"):
        forward(lean)
    assert held.ticket is not None
    found = lean.backward(held.ticket, {"outputs.1": G}, deadline_s=DEADLINE_S)
    assert_as_here(found["inputs.0"].tensor(), parameters_gradients(lean))
    assert forward(lean).ticket is not None


def test_answers_beyond_the_servers_pool_spill_and_are_freed(start: Starter, session: Session) -> None:
    start("narrow.0", arena_budget_nbytes=16 << 20, warm_nbytes=0, spill_budget_nbytes=48 << 20)
    narrow = session.connect("narrow.0", deadline_s=DEADLINE_S)
    x = torch.arange(2 << 20, dtype=torch.float32)  # 8 MiB
    held = [narrow.call("echo", "add_one_in_slot", {"x": x}, deadline_s=DEADLINE_S).values["value"] for _ in range(5)]
    assert eventually(lambda: narrow.ping(DEADLINE_S).spilled_nbytes > 0, True)
    assert all(torch.equal(reference.tensor(), x + 1) for reference in held)
    held.clear()
    narrow.flush()
    narrow.call("echo", "count", {}, deadline_s=DEADLINE_S)
    narrow.call("echo", "add_one", {"x": x}, deadline_s=DEADLINE_S)
    assert eventually(lambda: narrow.ping(DEADLINE_S).spilled_nbytes, 0) == 0
