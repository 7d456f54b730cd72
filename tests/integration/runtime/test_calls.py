"""Calls between real processes: values, tensors, leases, time limits."""

import itertools
import os
import signal
import threading
import time

import pytest
import torch
from eventually import eventually
from mora_runtime import Client, RunDirectory, Session, TensorRef
from mora_runtime.errors import (
    AgentFailed,
    ArenaFull,
    BadArgument,
    BoundsError,
    Cancelled,
    DeadlineExceeded,
    FrameError,
    PeerDied,
    ProtocolError,
    StaleReference,
    UnknownAgent,
    UnknownMethod,
)
from mora_runtime.limits import MAX_NUM_PARTS
from mora_runtime.process.role_process import RoleProcess
from mora_runtime.rpc.client import wait_for_messages
from mora_runtime.wire.codec import encode
from mora_runtime.wire.messages import Call, Pong
from server_starter import Starter
from slack import slack


def settled(client: Client, *, num_slots: int = 0, num_tickets: int = 0) -> Pong:
    """What the server holds once everything that ended here has been told to it: a call is answered after that."""
    client.call("echo", "count", {}, deadline_s=10)
    deadline = time.monotonic() + 5
    while True:
        client.flush()  # also what arrived together with that answer
        pong = client.ping(5)
        if (pong.num_slots, pong.num_tickets) == (num_slots, num_tickets) or time.monotonic() > deadline:
            return pong


def count(client: Client) -> int:
    """How often this server has counted, this time included."""
    counted: int = client.call("echo", "count", {}, deadline_s=10).values["value"]
    return counted


def test_values_of_every_type_arrive_unchanged(client: Client) -> None:
    reply = client.call("echo", "types", {"a": -3, "b": 0.5, "c": "ü\n", "d": ["x", ""], "e": True}, deadline_s=10)
    assert reply.values == {"a": -3, "b": 0.5, "c": "ü\n", "d": ["x", ""], "e": True}
    assert reply.ticket is None
    assert client.call("echo", "types", {"a": 0, "b": 1, "c": "", "d": []}, deadline_s=10).values["e"] is None


def test_tensors_of_every_dtype_and_shape_arrive_bit_for_bit(client: Client) -> None:
    torch.manual_seed(0)
    dtypes = (torch.float32, torch.bfloat16, torch.int64, torch.uint8)
    shapes = ((), (0,), (3, 0), (5,), (2, 3, 4), (70_000,), (1,) * 8)
    for dtype, shape in itertools.product(dtypes, shapes):
        tensor = (torch.rand(shape) * 100).to(dtype)
        returned = client.call("echo", "add_one", {"x": tensor}, deadline_s=10).values["value"]
        assert isinstance(returned, TensorRef)
        assert (returned.dtype, returned.shape) == (tensor.dtype, tuple(tensor.shape))
        assert torch.equal(returned.tensor(), tensor + 1)


def test_views_that_are_not_dense_arrive_with_their_values(client: Client) -> None:
    base = torch.arange(24.0).view(4, 6)
    for view in (base.t(), base[:, ::2], base[1:3, 2:], base.expand(2, 4, 6)):
        returned = client.call("echo", "add_one", {"x": view}, deadline_s=10).values["value"]
        assert torch.equal(returned.tensor(), view + 1)


def test_slots_are_returned_on_both_sides(client: Client, session: Session) -> None:
    before = settled(client)
    assert before.num_slots == 0
    for number in range(300):
        reply = client.call("echo", "add_one_in_slot", {"x": torch.full((4096,), float(number))}, deadline_s=10)
        assert reply.values["value"].tensor()[0].item() == number + 1
        del reply
    pong = settled(client)
    assert pong.num_slots == 0
    assert pong.arena_nbytes <= before.arena_nbytes + (4 << 20), "one slab of small slots, used again and again"
    assert session.store.arena.num_live == 0


def test_a_live_result_keeps_its_slot_and_its_value(client: Client) -> None:
    held = client.call("echo", "add_one", {"x": torch.zeros(10_000)}, deadline_s=10).values["value"].tensor()
    for _ in range(50):
        client.call("echo", "add_one", {"x": torch.full((10_000,), 9.0)}, deadline_s=10)
    assert torch.equal(held, torch.ones(10_000))
    assert settled(client, num_slots=1).num_slots == 1


@pytest.mark.parametrize(
    ("agent", "method", "arguments", "kind"),
    [
        ("absent", "add_one", {"x": torch.zeros(4000)}, UnknownAgent),
        ("echo", "absent", {"x": torch.zeros(4000)}, UnknownMethod),
        ("echo", "__init__", {"module": torch.zeros(4000)}, UnknownMethod),
        ("echo", "add_one", {"y": torch.zeros(4000)}, BadArgument),
        ("echo", "add_one", {"x": [torch.zeros(4000)]}, BadArgument),
        ("echo", "fail", {"x": torch.zeros(4000)}, BadArgument),
    ],
)
def test_a_refused_call_raises_the_same_error_here_and_leaves_no_lease(
    client: Client, session: Session, agent: str, method: str, arguments: dict[str, torch.Tensor], kind: type[Exception]
) -> None:
    with pytest.raises(kind, match=r"^echo\.0: "):
        client.call(agent, method, arguments, deadline_s=10)
    settled(client)
    assert session.store.arena.num_live == 0


def test_an_unsupported_value_is_refused_here_and_leaves_no_lease(client: Client, session: Session) -> None:
    for bad, kind in ((object(), BadArgument), (b"x", BadArgument), ("x" * 40_000, FrameError), (2**70, FrameError)):
        with pytest.raises(kind):
            client.call("echo", "add_one", {"x": torch.zeros(4000), "y": bad}, deadline_s=10)
    assert session.store.arena.num_live == 0
    assert count(client) > 0


def test_an_exception_of_an_agent_arrives_as_its_type_and_text_only(client: Client) -> None:
    with pytest.raises(AgentFailed, match=r"^echo\.0: echo\.fail: RuntimeError: this agent fails on purpose$"):
        client.call("echo", "fail", {}, deadline_s=10)
    assert count(client) > 0


def test_arguments_that_do_not_fit_raise_an_error_here_and_the_next_call_works(
    client: Client, session: Session
) -> None:
    with pytest.raises(ArenaFull, match="raise arena_nbytes"):
        client.call("echo", "add_one", {"x": torch.zeros(4000), "y": torch.empty(17 << 20)}, deadline_s=5)
    assert session.store.arena.num_live == 0
    assert count(client) > 0


def test_a_deadline_ends_the_wait_and_the_next_call_works(client: Client) -> None:
    with pytest.raises(DeadlineExceeded, match=r"echo\.0: echo\.work gave no answer"):
        client.call("echo", "work", {"seconds": 0.3}, deadline_s=0.05)
    assert count(client) > 0


def test_a_running_call_can_be_cancelled(client: Client) -> None:
    pending = client.submit("echo", "work", {"seconds": 60.0}, deadline_s=30)
    while client.ping(5).busy != "echo.work":
        pass
    client.cancel(pending, 5)
    with pytest.raises(Cancelled):
        pending.result()


def test_a_call_of_another_client_with_the_same_number_is_not_cancelled(client: Client, session: Session) -> None:
    other = session.connect("echo.0", deadline_s=10)
    pending = client.submit("echo", "work", {"seconds": 0.3}, deadline_s=30)
    while client.ping(5).busy != "echo.work":
        pass
    other.cancel(pending, 5)
    assert pending.result().values["value"] >= 0.3


def test_parts_of_a_result_arrive_while_the_call_runs_and_give_their_slots_back(client: Client) -> None:
    pending = client.submit("echo", "in_parts", {"num_parts": 3, "until_cancelled": True}, parts=True, deadline_s=30)
    parts: list[dict[str, object]] = []
    deadline = time.monotonic() + 20
    while len(parts) < 3:
        assert time.monotonic() < deadline
        wait_for_messages([client], 0.05)
        parts.extend(pending.take_parts())
    assert not pending.has_ended
    for number, part in enumerate(parts):
        assert part["number"] == number
        assert isinstance(part["rows"], TensorRef)
        assert torch.equal(part["rows"].tensor(), torch.full((3000,), float(number)))
    client.cancel(pending, 5)
    with pytest.raises(Cancelled):
        pending.result()
    del parts, part
    assert settled(client).num_slots == 0


def test_parts_beyond_the_limit_are_left_out(client: Client) -> None:
    pending = client.submit("echo", "in_parts", {"num_parts": MAX_NUM_PARTS + 50}, parts=True, deadline_s=60)
    while not pending.has_ended:
        wait_for_messages([client], 0.05)
    parts = pending.take_parts()
    assert [part["number"] for part in parts] == list(range(MAX_NUM_PARTS))
    assert pending.result().values["value"].tensor().numel() == MAX_NUM_PARTS + 50
    del parts
    assert settled(client).num_slots == 0


def test_parts_that_the_caller_does_not_take_leave_nothing(client: Client) -> None:
    wanted = client.submit("echo", "in_parts", {"num_parts": 2}, parts=True, deadline_s=10)
    unwanted = client.submit("echo", "in_parts", {"num_parts": 2}, deadline_s=10)
    client.submit("echo", "work", {"seconds": 0.3}, deadline_s=10).forget()  # so that the last parts arrive late
    forgotten = client.submit("echo", "in_parts", {"num_parts": 2}, parts=True, deadline_s=10)
    forgotten.forget()
    assert wanted.result().values["value"].tensor().tolist() == [0.0, 1.0]
    assert unwanted.result().values["value"].tensor().tolist() == [0.0, 1.0]
    assert unwanted.take_parts() == []
    assert settled(client).num_slots == 0


def test_a_ping_is_answered_while_an_agent_computes(client: Client) -> None:
    pending = client.submit("echo", "work", {"seconds": 0.5}, deadline_s=10)
    while (pong := client.ping(5)).busy != "echo.work":
        pass
    assert pong.busy_ns < 60e9
    assert pending.result().values["value"] >= 0.5
    assert eventually(lambda: client.ping(5).busy, "") == ""


def test_replies_can_be_awaited_in_any_order(client: Client) -> None:
    before = count(client)
    pending = [client.submit("echo", "count", {}, deadline_s=10) for _ in range(5)]
    assert [each.result().values["value"] - before for each in reversed(pending)] == [5, 4, 3, 2, 1]


def test_a_message_that_arrives_twice_runs_once(client: Client) -> None:
    first = client.submit("echo", "count", {}, deadline_s=10)
    assert client.peer.doorbell is not None
    client.peer.doorbell.send_frame(encode(Call(first.id, "echo", "count", {}, None, None, False, [])))
    assert count(client) == first.result().values["value"] + 1


def test_a_forwarding_process_never_maps_the_tensor(client: Client, other_server: Client) -> None:
    reference = client.call("echo", "add_one", {"x": torch.zeros(3000)}, deadline_s=10).values["value"]
    onward = other_server.call("echo", "add_one", {"x": reference}, deadline_s=10).values["value"]
    assert reference.segment._mapped is None
    assert torch.equal(onward.tensor(), torch.full((3000,), 2.0))
    home = client.call("echo", "add_one", {"x": reference}, deadline_s=10).values["value"]
    assert torch.equal(home.tensor(), torch.full((3000,), 2.0))
    del reference, onward, home
    settled(other_server)
    assert settled(client).num_slots == 0
    assert settled(other_server).num_slots == 0


def test_a_row_of_a_result_passes_through_another_session_of_this_process_without_being_mapped(
    client: Client, run: RunDirectory
) -> None:
    rows = torch.arange(3 * 3000.0).reshape(3, 3000)[:, :2992]  # rows that are aligned as slots are
    batch = client.call("echo", "add_one", {"x": rows}, deadline_s=10).values["value"]
    row = batch.row(2)
    with Session.open(run, "coordinator.0", arena_budget_nbytes=64 << 20, spill_budget_nbytes=0) as second:
        other = second.connect("echo.1", deadline_s=10)
        onward = other.call("echo", "add_one", {"x": row}, deadline_s=10).values["value"]
        assert torch.equal(onward.tensor(), rows[2:] + 2)
        assert batch.segment._mapped is None
        del batch, onward
        settled(other)
        assert settled(client, num_slots=1).num_slots == 1, "the row keeps its batch"
        del row
        assert settled(client).num_slots == 0
        assert settled(other).num_slots == 0


def test_a_row_that_cannot_be_passed_on_by_itself_is_none(client: Client) -> None:
    small = client.call("echo", "add_one", {"x": torch.zeros(2, 4)}, deadline_s=10).values["value"]
    crooked = client.call("echo", "add_one", {"x": torch.zeros(2, 3001)}, deadline_s=10).values["value"]
    assert small.row(0) is None
    assert crooked.row(0) is not None
    assert crooked.row(1) is None
    with pytest.raises(BoundsError, match="expected a row of"):
        crooked.row(2)
    rows = client.call("echo", "add_one", {"x": torch.zeros(2, 3200)}, deadline_s=10).values["value"]
    with pytest.raises(StaleReference):
        client.call("echo", "add_one", {"x": rows.row(1)}, deadline_s=10)


def test_results_stay_readable_after_the_death_of_their_server_and_its_role_can_start_again(
    start: Starter, session: Session, other_server: Client
) -> None:
    maker = start("maker.0")
    client = session.connect("maker.0", deadline_s=10)
    reference = client.call("echo", "add_one", {"x": torch.zeros(3000)}, deadline_s=10).values["value"]
    maker.process.kill()
    started_s = time.monotonic()
    with pytest.raises(PeerDied):
        client.ping(60)
    with pytest.raises(PeerDied):
        client.call("echo", "count", {}, deadline_s=60)
    assert time.monotonic() - started_s < 2 * slack()
    onward = other_server.call("echo", "add_one", {"x": reference}, deadline_s=10).values["value"]
    assert torch.equal(onward.tensor(), torch.full((3000,), 2.0))
    assert torch.equal(reference.tensor(), torch.ones(3000))
    maker.process.wait(10)
    start("maker.0", wait=False, generation=2)
    assert count(session.connect("maker.0", deadline_s=60)) == 1


def test_a_killed_server_is_noticed_within_two_seconds_and_by_every_later_call(
    start: Starter, session: Session
) -> None:
    child = start("doomed.0")
    client = session.connect("doomed.0", deadline_s=10)
    pending = client.submit("echo", "work", {"seconds": 60.0}, deadline_s=60)
    while client.ping(5).busy != "echo.work":
        pass
    started_s = time.monotonic()
    os.kill(child.process.pid, signal.SIGKILL)
    with pytest.raises(PeerDied, match=r"doomed\.0 has ended, echo\.work cannot be answered"):
        pending.result()
    for _ in range(2):
        with pytest.raises(PeerDied, match=r"doomed\.0 has ended"):
            client.call("echo", "add_one", {"x": torch.zeros(3)}, deadline_s=60)
    with pytest.raises(PeerDied):
        client.ping(60)
    assert time.monotonic() - started_s < 2 * slack()
    assert session.store.arena.num_live == 0


def test_a_stopped_server_continues_where_it_was(servers: dict[str, RoleProcess], client: Client) -> None:
    os.kill(servers["echo.0"].process.pid, signal.SIGSTOP)
    try:
        stopped = client.submit("echo", "count", {}, deadline_s=0.2)
        with pytest.raises(DeadlineExceeded):
            stopped.result()
    finally:
        os.kill(servers["echo.0"].process.pid, signal.SIGCONT)
    assert count(client) > 1


def test_one_connection_can_end_while_another_of_the_same_process_continues(client: Client, session: Session) -> None:
    other = session.connect("echo.0", deadline_s=10)
    for each in (client, other):
        each.call("echo", "add_one", {"x": torch.zeros(3)}, deadline_s=10)
    other.close()
    returned = client.call("echo", "add_one", {"x": torch.ones(3)}, deadline_s=10).values["value"]
    assert torch.equal(returned.tensor(), torch.full((3,), 2.0))


def test_a_missing_server_is_a_deadline_that_names_it(run: RunDirectory, session: Session) -> None:
    with pytest.raises(DeadlineExceeded, match=r"absent\.0 did not greet"):
        session.connect("absent.0", deadline_s=0.1)


def test_another_lock_is_refused_naming_both(client: Client, session: Session) -> None:
    with pytest.raises(ProtocolError, match=r"control built from lock 0123456789abcdef, this process expects fedc"):
        session.connect("echo.0", deadline_s=10, expected_lock_hash="fedc")


def test_finalizers_in_other_threads_return_leases_too(client: Client, session: Session) -> None:
    replies = [client.call("echo", "add_one", {"x": torch.zeros(10_000)}, deadline_s=10) for _ in range(8)]
    thread = threading.Thread(target=replies.clear)
    thread.start()
    thread.join(10)
    assert settled(client).num_slots == 0
