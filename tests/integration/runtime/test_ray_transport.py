"""Mora's tensor store as a transport of Ray Direct Transport, and the exchange below it, which needs no Ray."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from eventually import eventually
from mora_runtime.errors import ArenaFull, BoundsError, DeadlineExceeded, PeerDied, StaleReference
from mora_runtime.wire.tensor_meta import DTYPES

FOLDER = Path(__file__).resolve().parents[3] / "examples" / "ray_transport"
sys.path.insert(0, str(FOLDER))
from tensor_exchange import TensorExchange  # noqa: E402  # of the example's folder

MIB = 1 << 20
DEADLINE_S = 20.0
_OWNER = """
import sys, torch
from tensor_exchange import TensorExchange
exchange = TensorExchange(arena_nbytes=1 << 22, spill_nbytes=0)
exchange.place("x", [torch.arange(1 << 18)])
print(exchange.address, flush=True)
sys.stdin.read()
"""
_RECEIVER = """
import sys
from tensor_exchange import TensorExchange
views = TensorExchange(arena_nbytes=1 << 22, spill_nbytes=0).fetch(sys.argv[1], "x", 1, deadline_s=20)
print(float(views[0].sum()), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def open_exchange() -> Iterator[Callable[..., TensorExchange]]:
    """Opens exchanges that end with the test."""
    opened: list[TensorExchange] = []

    def make(arena_nbytes: int = 8 * MIB) -> TensorExchange:
        opened.append(TensorExchange(arena_nbytes=arena_nbytes, spill_nbytes=0))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python programs that are killed with the test."""
    started: list[subprocess.Popen[str]] = []

    def program(code: str, *arguments: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", code, *arguments], cwd=FOLDER, text=True, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )  # fmt: skip
        return started[-1]

    yield program
    for each in started:
        each.kill()
        each.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_every_dtype_and_size_arrives_with_the_same_bytes(open_exchange: Callable[..., TensorExchange]) -> None:
    owner, receiver = open_exchange(), open_exchange()
    numbers = torch.arange(60_000) % 100
    sent = [numbers.to(dtype).view(200, 300) for dtype in DTYPES]
    sent += [torch.tensor(3.5), torch.zeros(0, 4), torch.arange(12.0).view(3, 4).t()]
    sent += [torch.full((7,), float(number)) for number in range(150)]  # more than one message carries
    owner.place("x", sent)
    received = receiver.fetch(owner.address, "x", len(sent), deadline_s=DEADLINE_S)
    for here, there in zip(sent, received, strict=True):
        torch.testing.assert_close(there, here, rtol=0, atol=0)


def test_a_receiver_maps_the_owner_s_memory(open_exchange: Callable[..., TensorExchange]) -> None:
    owner, receiver = open_exchange(), open_exchange()
    made = owner.empty([MIB // 4]).fill_(1.0)
    owner.place("x", [made])
    assert owner.num_live_slots() == 1  # placed where it was made
    (view,) = receiver.fetch(owner.address, "x", 1, deadline_s=DEADLINE_S)
    made[5] = 2.0
    assert view[5] == 2.0


def test_a_slot_is_free_after_its_name_and_its_last_view(open_exchange: Callable[..., TensorExchange]) -> None:
    owner, receiver = open_exchange(), open_exchange()
    owner.place("x", [torch.ones(MIB // 4)])
    (view,) = receiver.fetch(owner.address, "x", 1, deadline_s=DEADLINE_S)
    owner.remove("x")
    owner.place("y", [torch.zeros(MIB // 4)])
    assert owner.num_live_slots() == 2
    assert bool((view == 1.0).all())  # not overwritten by y
    del view
    assert eventually(owner.num_live_slots, 1) == 1


def test_a_removed_name_cannot_be_fetched(open_exchange: Callable[..., TensorExchange]) -> None:
    owner, receiver = open_exchange(), open_exchange()
    owner.place("x", [torch.ones(2)])
    owner.remove("x")
    with pytest.raises(StaleReference, match="removed before the fetch"):
        receiver.fetch(owner.address, "x", 1, deadline_s=DEADLINE_S)


def test_a_full_arena_waits_for_the_receiver(
    open_exchange: Callable[..., TensorExchange], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, receiver = open_exchange(arena_nbytes=MIB), open_exchange()
    is_waiting, reclaim = threading.Event(), owner.reclaim

    def noticed(timeout_s: float) -> bool:
        is_waiting.set()
        return reclaim(timeout_s)

    monkeypatch.setattr(owner, "reclaim", noticed)
    owner.place("x", [torch.ones(MIB // 4)])
    views = receiver.fetch(owner.address, "x", 1, deadline_s=DEADLINE_S)
    owner.remove("x")
    with ThreadPoolExecutor(1) as pool:
        placed = pool.submit(owner.place, "y", [torch.zeros(MIB // 4)])
        assert is_waiting.wait(DEADLINE_S)
        assert bool((views[0] == 1.0).all())
        assert not placed.done()
        views.clear()
        placed.result(DEADLINE_S)


def test_a_full_arena_without_users_elsewhere_is_refused_at_once(open_exchange: Callable[..., TensorExchange]) -> None:
    owner = open_exchange(arena_nbytes=MIB)
    kept = owner.empty([MIB // 4])
    with pytest.raises(ArenaFull, match="0 names are placed here"):
        owner.place("x", [torch.zeros(MIB // 4)])
    assert kept.numel() == MIB // 4


def test_the_owner_s_death_is_an_error_and_leaves_its_views_readable(
    open_exchange: Callable[..., TensorExchange], start: Callable[..., subprocess.Popen[str]]
) -> None:
    receiver = open_exchange()
    owner = start(_OWNER)
    address = said(owner)
    (view,) = receiver.fetch(address, "x", 1, deadline_s=DEADLINE_S)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    with pytest.raises(PeerDied, match="has ended"):
        receiver.fetch(address, "x", 1, deadline_s=DEADLINE_S)
    assert bool((view == torch.arange(1 << 18)).all())


def test_an_owner_that_is_stopped_does_not_block_for_longer_than_the_deadline(
    open_exchange: Callable[..., TensorExchange], start: Callable[..., subprocess.Popen[str]]
) -> None:
    receiver = open_exchange()
    owner = start(_OWNER)
    address = said(owner)
    owner.send_signal(signal.SIGSTOP)
    os.waitpid(owner.pid, os.WUNTRACED)  # returns when every thread has stopped
    with pytest.raises(DeadlineExceeded, match="did not answer a fetch within 1 s"):
        receiver.fetch(address, "x", 1, deadline_s=1.0)
    owner.send_signal(signal.SIGCONT)
    (view,) = receiver.fetch(address, "x", 1, deadline_s=DEADLINE_S)
    assert int(view[-1]) == (1 << 18) - 1


def test_the_receiver_s_death_frees_the_owner_s_slot(
    open_exchange: Callable[..., TensorExchange], start: Callable[..., subprocess.Popen[str]]
) -> None:
    owner = open_exchange()
    owner.place("x", [torch.ones(MIB // 4)])
    receiver = start(_RECEIVER, owner.address)
    assert float(said(receiver)) == MIB // 4
    owner.remove("x")
    assert owner.num_live_slots() == 1
    receiver.send_signal(signal.SIGKILL)
    assert eventually(owner.num_live_slots, 0) == 0


@pytest.fixture(scope="module")
def actors() -> Iterator[tuple[Any, Any]]:
    """The classes of two actors, in a Ray cluster on this machine."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed; `pip install ray` into this environment to run this test")
    folder = tempfile.mkdtemp(prefix="ray-")  # a short path, because Ray makes sockets in it
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(FOLDER))  # of the actors
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patched.setenv("RAY_AUTH_MODE", "token")
        patched.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray reads all of these when it is imported
        import ray
        from mora_transport import register

        ray.init(
            address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
            object_store_memory=128 * MIB, _temp_dir=folder, _node_ip_address="127.0.0.1",
        )  # fmt: skip
        register()
        yield _actor_classes()
        ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def _actor_classes() -> tuple[Any, Any]:
    """Classes made in a function, which Ray sends to its workers by value."""
    import mora_transport
    import ray

    class Source:
        def __init__(self) -> None:
            self.kept: torch.Tensor | None = None

        @ray.method(tensor_transport="mora")
        def make(self, value: float) -> dict[str, Any]:
            return {"value": value, "x": torch.full((1 << 18,), value)}

        @ray.method(tensor_transport="mora")
        def resident(self) -> torch.Tensor:
            self.kept = mora_transport.empty([1 << 18]).fill_(1.0)
            return self.kept

        @ray.method(tensor_transport="mora")
        def elsewhere(self) -> torch.Tensor:
            return torch.ones(4, device="meta")

        def first(self) -> float:
            assert self.kept is not None
            return float(self.kept[0])

        def num_live_slots(self) -> int:
            return mora_transport.exchange().num_live_slots()

    class Sink:
        def __init__(self) -> None:
            self.kept: list[Any] = []

        def total(self, made: dict[str, Any]) -> float:
            return float(made["x"].sum())

        def keep(self, made: Any) -> None:
            self.kept.append(made)

        def add_one(self, x: torch.Tensor) -> None:
            x += 1

        def drop(self) -> int:
            """Drop everything; the number of mapped segments that are left."""
            self.kept.clear()
            return sum(
                "memfd:mora" in line for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
            )

    remote = ray.remote(num_cpus=0, enable_tensor_transport=True)
    return remote(Source), remote(Sink)


def asked(call: Any, *arguments: Any) -> Any:
    import ray

    return ray.get(call.remote(*arguments), timeout=60)


def test_ray_passes_a_tensor_inside_other_values(actors: tuple[Any, Any]) -> None:
    source, sink = (each.remote() for each in actors)
    made = source.make.remote(2.0)
    assert asked(sink.total, made) == 2.0 * (1 << 18)
    assert asked(sink.total, made) == 2.0 * (1 << 18)  # the same object, fetched again


def test_a_ray_actor_maps_the_memory_of_another(actors: tuple[Any, Any]) -> None:
    source, sink = (each.remote() for each in actors)
    asked(sink.add_one, source.resident.remote())
    assert asked(source.first) == 2.0


def test_the_driver_of_ray_fetches_too(actors: tuple[Any, Any]) -> None:
    import ray

    source, sink = (each.remote() for each in actors)
    made = ray.get(source.make.remote(3.0), timeout=60)
    assert bool((made["x"] == 3.0).all())
    assert asked(sink.total, ray.put({"x": torch.ones(1 << 18)}, _tensor_transport="mora")) == 1 << 18


def test_ray_frees_a_slot_after_the_object_and_the_receiver_s_view(actors: tuple[Any, Any]) -> None:
    source, sink = (each.remote() for each in actors)
    made = source.make.remote(1.0)
    asked(sink.keep, made)
    assert asked(source.num_live_slots) == 1
    del made
    other = source.make.remote(2.0)
    assert asked(sink.total, other) == 2.0 * (1 << 18)
    del other
    assert eventually(lambda: asked(source.num_live_slots), 1) == 1  # what the sink keeps
    asked(sink.drop)
    assert eventually(lambda: asked(source.num_live_slots), 0) == 0


def test_a_tensor_that_is_not_in_cpu_memory_is_refused(actors: tuple[Any, Any]) -> None:
    source, sink = (each.remote() for each in actors)
    with pytest.raises(BoundsError, match=r"carries tensors in CPU memory, .* has one on meta; return tensor.cpu\(\)"):
        asked(sink.keep, source.elsewhere.remote())


def test_the_death_of_the_source_is_an_error_and_leaves_no_memory(actors: tuple[Any, Any]) -> None:
    import ray

    source, sink = (each.remote() for each in actors)
    made = source.make.remote(1.0)
    asked(sink.keep, made)
    ray.kill(source)
    with pytest.raises(PeerDied, match=r"the owner of the tensors,? has ended"):
        asked(sink.keep, made)
    assert eventually(lambda: asked(sink.drop), 0) == 0


def test_the_death_of_the_sink_frees_the_source_s_slot(actors: tuple[Any, Any]) -> None:
    import ray

    source, sink = (each.remote() for each in actors)
    asked(sink.keep, source.make.remote(1.0))
    ray.kill(sink)
    assert eventually(lambda: asked(source.num_live_slots), 0) == 0
