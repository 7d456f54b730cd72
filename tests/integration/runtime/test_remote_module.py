"""A module in another process gives the same numbers and gradients as in this process."""

import gc
import time

import pytest
import torch
from echo_server import TwoHeads, make_module
from mora_runtime import Client, RemoteModule
from mora_runtime.errors import BadArgument, TicketSpent, TooManyTickets, UnknownTicket
from mora_runtime.limits import MAX_NUM_TICKETS


@pytest.fixture
def local() -> TwoHeads:
    return make_module()


@pytest.fixture
def remote(client: Client) -> RemoteModule:
    client.call("echo", "gradients", {}, deadline_s=10)  # clears what another test has left
    return RemoteModule(client, "heads", deadline_s=10)


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(4, 6, requires_grad=True), torch.randn(5)


def remote_gradients(client: Client) -> dict[str, torch.Tensor]:
    values = client.call("echo", "gradients", {}, deadline_s=10).values
    return {name: reference.tensor().clone() for name, reference in values.items() if reference is not None}


def local_gradients(module: TwoHeads) -> dict[str, torch.Tensor]:
    return {n.replace(".", "_"): p.grad for n, p in module.named_parameters() if p.grad is not None}


def num_tickets(client: Client, expected: int) -> int:
    """State of the server, read again until it is as expected or five seconds have passed."""
    gc.collect()
    client.flush()
    client.call("echo", "count", {}, deadline_s=10)
    deadline = time.monotonic() + 5
    while (found := client.ping(5).num_tickets) != expected and time.monotonic() < deadline:
        pass
    return found


def test_outputs_are_bit_equal_to_the_local_module(remote: RemoteModule, local: TwoHeads) -> None:
    x, scale = inputs()
    for there, here in zip(remote(x, scale), local(x, scale), strict=True):
        assert torch.equal(there, here)
        assert there.requires_grad == here.requires_grad
        assert there.dtype == here.dtype


def test_gradients_of_inputs_and_parameters_are_bit_equal(
    client: Client, remote: RemoteModule, local: TwoHeads
) -> None:
    found = []
    for module in (remote, local):
        x, scale = inputs()
        scale.requires_grad_(True)
        first, second, _ = module(x, scale)
        (first.sin().sum() + second.pow(2).sum()).backward()
        found.append((x.grad, scale.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    there, here = remote_gradients(client), local_gradients(local)
    assert there.keys() == here.keys()
    assert all(torch.equal(there[name], here[name]) for name in here)


def test_an_output_that_is_not_used_needs_no_gradient(client: Client, remote: RemoteModule, local: TwoHeads) -> None:
    for module in (remote, local):
        module(*inputs())[1].sum().backward()
    there, here = remote_gradients(client), local_gradients(local)
    assert all(torch.equal(there[name], here[name]) for name in here)


def test_gradients_accumulate_over_micro_batches(client: Client, remote: RemoteModule, local: TwoHeads) -> None:
    for module in (remote, local):
        losses = [module(*inputs())[1].sum() * factor for factor in (1.0, 2.0, 4.0)]
        for loss in losses:
            loss.backward()
    there, here = remote_gradients(client), local_gradients(local)
    assert all(torch.equal(there[name], here[name]) for name in here)


def test_parameters_get_gradients_when_no_input_needs_one(
    client: Client, remote: RemoteModule, local: TwoHeads
) -> None:
    for module in (remote, local):
        x, scale = inputs()
        module(x.detach(), scale)[0].sum().backward()
    there, here = remote_gradients(client), local_gradients(local)
    assert torch.equal(there["first_weight"], here["first_weight"])


def test_the_output_of_one_remote_module_flows_into_another_and_back(
    client: Client, other_server: Client, remote: RemoteModule, local: TwoHeads
) -> None:
    onward = RemoteModule(other_server, "heads", deadline_s=10)
    mix = torch.ones(3, 6)
    found = []
    for first, second in ((remote, onward), (local, make_module())):
        x, scale = inputs()
        hidden = first(x, scale)[1] @ mix
        second(hidden, scale)[1].sum().backward()
        assert x.grad is not None
        found.append(x.grad.clone())
    assert torch.equal(found[0], found[1])


def test_no_graph_is_kept_without_grad(client: Client, remote: RemoteModule, local: TwoHeads) -> None:
    with torch.no_grad():
        outputs = remote(*inputs())
        expected = local(*inputs())
    assert not any(output.requires_grad for output in outputs)
    assert all(torch.equal(there, here) for there, here in zip(outputs, expected, strict=True))
    assert num_tickets(client, 0) == 0


def test_a_second_backward_says_to_run_the_forward_again(remote: RemoteModule) -> None:
    loss = remote(*inputs())[1].sum()
    loss.backward(retain_graph=True)
    with pytest.raises(TicketSpent, match="run the forward again"):
        loss.backward()


def test_a_graph_that_is_dropped_here_is_freed_in_the_server(client: Client, remote: RemoteModule) -> None:
    held = [remote(*inputs()) for _ in range(5)]
    assert num_tickets(client, 5) == 5
    held.pop()
    assert num_tickets(client, 4) == 4
    held.clear()
    assert num_tickets(client, 0) == 0


def test_too_many_graphs_are_refused_and_freed_ones_make_room(client: Client, remote: RemoteModule) -> None:
    held = [remote(*inputs()) for _ in range(MAX_NUM_TICKETS)]
    with pytest.raises(TooManyTickets, match=f"{MAX_NUM_TICKETS} graphs wait for their backward"):
        remote(*inputs())
    held.clear()
    assert num_tickets(client, 0) == 0
    remote(*inputs())[1].sum().backward()


def test_a_ticket_gives_the_requested_gradients(client: Client) -> None:
    x = torch.tensor([1.0, 2.0])
    reply = client.call("echo", "square", {"x": x}, grad=["x"], deadline_s=10)
    assert reply.ticket is not None
    assert reply.values["y"].tensor().item() == 5.0
    assert client.backward(reply.ticket, deadline_s=10)["x"].tensor().tolist() == [2.0, 4.0]
    with pytest.raises(TicketSpent):
        client.backward(reply.ticket, deadline_s=10)


def test_a_dropped_ticket_is_freed_and_spent(client: Client) -> None:
    reply = client.call("echo", "square", {"x": torch.ones(2)}, grad=["x"], deadline_s=10)
    assert reply.ticket is not None
    reply.ticket.drop()
    assert num_tickets(client, 0) == 0
    with pytest.raises(TicketSpent):
        client.backward(reply.ticket, deadline_s=10)


def test_a_ticket_of_another_client_is_unknown(client: Client, other_server: Client) -> None:
    reply = client.call("echo", "square", {"x": torch.ones(2)}, grad=["x"], deadline_s=10)
    assert reply.ticket is not None
    with pytest.raises(UnknownTicket):
        other_server.backward(reply.ticket, deadline_s=10)


def test_an_impossible_gradient_is_refused_by_name(client: Client) -> None:
    with pytest.raises(BadArgument, match=r"echo\.add_one is not differentiable"):
        client.call("echo", "add_one", {"x": torch.ones(2)}, grad=["x"], deadline_s=10)
    with pytest.raises(BadArgument, match=r"echo\.square\(x\): in grad, but not a floating-point tensor"):
        client.call("echo", "square", {"x": torch.ones(2, dtype=torch.int64)}, grad=["x"], deadline_s=10)
    reply = client.call("echo", "square", {"x": torch.ones(2)}, grad=["x"], deadline_s=10)
    assert reply.ticket is not None
    with pytest.raises(BadArgument, match="gradient for `z`: no such differentiable output"):
        client.backward(reply.ticket, {"z": torch.ones(())}, deadline_s=10)
    assert num_tickets(client, 0) == 0


def test_gradients_stay_unchanged_during_later_work(remote: RemoteModule) -> None:
    x, scale = inputs()
    remote(x, scale)[0].sum().backward()
    assert x.grad is not None
    kept, expected = x.grad, x.grad.clone()
    for _ in range(20):
        y, _ = inputs()
        remote(y * 2, scale)[0].sum().backward()
    assert torch.equal(kept, expected)
