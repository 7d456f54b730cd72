"""Deaths of owners, readers and coordinators of device memory: nothing hangs, and nothing stays allocated."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from device_chain import DEADLINE_S, HERE, NUMEL, Chain, Servers, ask, eventually
from mora_runtime import RunDirectory, Session
from mora_runtime.errors import PeerDied

X = torch.linspace(-1, 1, NUMEL)

COORDINATOR = f"""
import sys, torch
sys.path.insert(0, {str(HERE)!r})
from device_chain import Chain
from mora_runtime import RunDirectory, Session
with Session.open(RunDirectory.open(sys.argv[1]), "coordinator.5", arena_budget_nbytes=16 << 20) as session:
    chain = Chain(session, "image.1", "video.1")
    chain.introduced()
    refs = [chain.double(torch.ones({NUMEL})) for _ in range(3)]
    chain.second.call("stage", "keep", {{"y": refs[0]}}, deadline_s=30)
    print("holding", flush=True)
    sys.stdin.read()
"""


def test_a_killed_reader_leaves_no_slot_in_use(servers: Servers, session: Session) -> None:
    _, reader = servers.start("image.1", "video.1")
    chain = Chain(session, "image.1", "video.1")
    chain.introduced()
    refs = [chain.double(X) for _ in range(3)]
    for ref in refs:
        ask(chain.second, "keep", y=ref)
    del refs, ref
    servers.kill(reader)
    with pytest.raises(PeerDied):
        ask(chain.second, "sum_kept")

    def is_free() -> bool:
        chain.first.flush()
        return bool(ask(chain.first, "counts")["num_live"] == 0)

    assert eventually(is_free), ask(chain.first, "counts")
    assert eventually(lambda: ask(chain.first, "counts")["num_opened"] == 0)


def test_the_successor_of_a_killed_reader_is_introduced_again(servers: Servers, session: Session) -> None:
    _, reader = servers.start("image.1", "video.1")
    chain = Chain(session, "image.1", "video.1")
    chain.introduced()
    servers.kill(reader)
    with pytest.raises(PeerDied):
        ask(chain.second, "sum_kept")
    servers.start("video.1")
    chain.second = session.connect("video.1", deadline_s=DEADLINE_S)
    first = chain.step(X)
    chain.introduced()
    again = chain.step(X)
    assert first[0] == again[0]
    assert all(torch.equal(one, other) for one, other in zip(first[1], again[1], strict=True))


def test_a_killed_owner_fails_new_reads_and_keeps_old_ones_and_leaves_nothing_open(
    servers: Servers, session: Session
) -> None:
    owner, _ = servers.start("image.1", "video.1")
    chain = Chain(session, "image.1", "video.1")
    chain.introduced()
    events = ask(chain.second, "counts")["num_events"]
    kept, late = chain.double(X), chain.double(X)
    total = ask(chain.second, "keep", y=kept)["value"]
    servers.kill(owner)
    with pytest.raises(PeerDied, match=r"image\.1.*has ended"):
        ask(chain.second, "keep", y=late)
    assert ask(chain.second, "sum_kept")["value"] == [total]
    assert ask(chain.second, "counts")["num_opened"] == 1, "a view is left"
    ask(chain.second, "drop")
    assert eventually(lambda: ask(chain.second, "counts")["num_opened"] == 0)
    assert ask(chain.second, "counts")["num_events"] < events, "the owner's events are closed too"
    assert ask(chain.second, "counts")["num_live"] == 0


def test_a_reader_that_waits_for_a_killed_owner_answers_at_once(servers: Servers, session: Session) -> None:
    owner, _ = servers.start("image.1", "video.1")
    chain = Chain(session, "image.1", "video.1")
    chain.introduced()
    # the next tensor uses the stream that is held, so its event does not happen
    chain.first.call("stage", "hold", {"seconds": 600.0}, deadline_s=DEADLINE_S)
    ref = chain.double(X)
    pending = chain.second.submit("stage", "keep", {"y": ref}, deadline_s=DEADLINE_S)
    assert eventually(lambda: chain.second.ping(DEADLINE_S).num_calls > 0)
    servers.kill(owner)
    with pytest.raises(PeerDied, match=r"image\.1.*has ended"):
        pending.result()
    assert ask(chain.second, "sum_kept")["value"] == []


def test_a_killed_coordinator_leaves_nothing_in_either_server(
    run: RunDirectory, servers: Servers, session: Session
) -> None:
    servers.start("image.1", "video.1")
    first = session.connect("image.1", deadline_s=DEADLINE_S)
    second = session.connect("video.1", deadline_s=DEADLINE_S)
    with subprocess.Popen(
        [sys.executable, "-c", COORDINATOR, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as coordinator:  # fmt: skip
        assert coordinator.stdout is not None
        assert coordinator.stdout.readline() == "holding\n"
        assert ask(first, "counts")["num_live"] == 3
        coordinator.send_signal(signal.SIGKILL)
    assert eventually(lambda: ask(first, "counts")["num_live"] == 0)
    ask(second, "drop")
    # of this session's introduction, each server has one pool of the other open
    assert eventually(lambda: ask(second, "counts")["num_opened"] <= 1)
    assert eventually(lambda: ask(first, "counts")["num_opened"] <= 1)


def test_a_server_that_ends_in_order_frees_its_memory(servers: Servers, session: Session) -> None:
    started = servers.start("image.1", "video.1")
    chain = Chain(session, "image.1", "video.1")
    chain.introduced()
    for server in started:
        server.ask_to_stop()
        assert server.process.wait(20) == 0
