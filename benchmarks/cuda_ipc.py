"""Device memory between two processes on one GPU: what a hand-over costs, and what killed processes leave behind.

`python -m benchmarks.cuda_ipc [--json FILE]`, in any environment with torch for CUDA, `cuda-bindings` and this runtime.
`--peer-python` names another environment's interpreter for the second process. Times are wall-clock medians of
interleaved rounds; the GPU is synchronised before and after each.

1. 256 MB in a slot are handed over, and the peer computes x + 1 and answers; compared with a cudaMemcpy of the same
  bytes on the device, and with the same addition in one process.
2. 1 KB: the hand-over with its event, with and without a kernel, compared with a bare message there and back.
3. A view in an open pool, compared with opening and closing the handle for each tensor.
4. Staging: device to host and back through a pinned segment, compared with a pageable one.
5. SIGKILL of a reader that has views, and of an owner whose tensors a reader views: hangs, and memory not freed.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import platform
import statistics
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from mora_runtime.device.cuda_ipc import Device, why_unavailable
from mora_runtime.device.device_pool import DevicePool
from mora_runtime.device.pinned_staging import PinnedStaging
from mora_runtime.errors import MoraError
from mora_runtime.tensors.segment import Segment
from mora_runtime.wire.device_tensor import DeviceTensor

from benchmarks.device_peer import DevicePeer, checksum, forbid_torch_ipc

MB = 1 << 20
LARGE_NUMEL, SMALL_NUMEL = 64 * MB, 256  # float32: 256 MB, 1 KB
HELD_NUMEL = 4 * MB  # float32: 16 MB
BUSY_MS = 2000
MEMORY_DEADLINE_S = 10.0
WAITING = "waiting for its work: "
HELD, NOTICED = "views held: readable", WAITING + "peer_died"  # the expected answers of a reader whose owner is killed
SLACK_NBYTES = 2 * MB  # less missing from the device's free memory than this does not count as a leak
GIVE_UP_S = 1200


class Session:
    """This process, which owns the pool, and one reader."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = Device(options.device)
        self.pool = DevicePool(self.device, 3 * LARGE_NUMEL * 4)
        self.peer = self.new_peer()
        self.lead(self.peer)

    def new_peer(self) -> DevicePeer:
        """A peer that has not touched the device yet."""
        return DevicePeer(self.options.device, self.options.peer_python)

    def lead(self, peer: DevicePeer) -> None:
        """Let a peer open our pool."""
        peer.open(self.pool.offer.pack(), os.getpid())

    def tensor(self, numel: int) -> torch.Tensor:
        """Random numbers in a slot."""
        return self.pool.empty((numel,)).normal_()

    def export(self, tensor: torch.Tensor) -> DeviceTensor:
        return self.pool.export(*self.pool.place(tensor))

    def hand_over(self, letter: bytes, tensor: torch.Tensor) -> bytes:
        """Export, send, and wait for the answer."""
        return self.peer.ask(letter + struct.pack("!I", 1) + self.export(tensor).pack())


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def in_turn(rounds: int, warm_up: int, **works: Callable[[], object]) -> dict[str, list[float]]:
    """Seconds of each piece of work, round by round."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(warm_up + rounds):
        for name, work in works.items():
            seconds = timed(work)
            if turn >= warm_up:
                taken[name].append(seconds)
    return taken


def spread(seconds: list[float]) -> dict[str, float]:
    """Microseconds."""
    ordered = sorted(seconds)
    return {
        "median_us": round(statistics.median(ordered) * 1e6, 2),
        "p10_us": round(ordered[len(ordered) // 10] * 1e6, 2),
        "p90_us": round(ordered[len(ordered) * 9 // 10] * 1e6, 2),
    }


def measure_large(session: Session) -> dict[str, Any]:
    x = session.tensor(LARGE_NUMEL)
    y = torch.empty(x.shape, device=x.device)
    taken = in_turn(
        session.options.rounds,
        3,
        hand_over_and_add=lambda: session.hand_over(b"A", x),
        cudamemcpy_d2d=lambda: y.copy_(x),
        add_in_one_process=lambda: torch.add(x, 1, out=y),
    )
    (told,) = struct.unpack("!q", session.peer.ask(b"S"))
    expected = checksum(torch.add(x, 1))
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    above = medians["hand_over_and_add"] - medians["add_in_one_process"]
    return {
        "nbytes": LARGE_NUMEL * 4,
        **{name: spread(seconds) for name, seconds in taken.items()},
        "result_is_right": told == expected,
        "hand_over_alone_us": round(above * 1e6, 1),
        "hand_over_alone_share_of_d2d": round(above / medians["cudamemcpy_d2d"], 4),
        "d2d_gb_per_s": round(LARGE_NUMEL * 4 / medians["cudamemcpy_d2d"] / 1e9, 1),
    }


def measure_small(session: Session) -> dict[str, Any]:
    x = session.tensor(SMALL_NUMEL)
    taken = in_turn(
        session.options.rounds * 50,
        100,
        bare_message=lambda: session.peer.ask(b"P"),
        hand_over=lambda: session.hand_over(b"L", x),
        hand_over_and_add=lambda: session.hand_over(b"A", x),
    )
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    return {
        "nbytes": SMALL_NUMEL * 4,
        **{name: spread(seconds) for name, seconds in taken.items()},
        "hand_over_above_message_us": round((medians["hand_over"] - medians["bare_message"]) * 1e6, 1),
    }


def measure_handles(session: Session) -> dict[str, Any]:
    x = session.tensor(SMALL_NUMEL)
    request = b"C" + struct.pack("!II", session.options.rounds, 1) + session.export(x).pack()
    opened_s, each_s = struct.unpack("!2d", session.peer.ask(request))
    return {
        "view_in_open_pool_us": round(opened_s * 1e6, 1),
        "open_view_close_us": round(each_s * 1e6, 1),
        "ratio": round(each_s / opened_s, 1),
    }


def measure_staging(session: Session) -> dict[str, Any]:
    x = session.tensor(LARGE_NUMEL)
    staging = PinnedStaging(session.device)
    segment = Segment.create(LARGE_NUMEL * 4)
    window = torch.frombuffer(segment.buffer, dtype=torch.float32)

    def to_host() -> None:
        staging.to_host(x, window)
        staging.wait(deadline_s=60)

    def to_device() -> None:
        staging.to_device(window)
        torch.cuda.synchronize()
        staging.collect()

    rates: dict[str, Any] = {}
    for kind in ("pageable", "pinned"):
        if kind == "pinned":
            began = time.perf_counter()
            staging.register(segment.buffer)
            rates["register_ms"] = round((time.perf_counter() - began) * 1e3, 1)
        for name, seconds in in_turn(5, 1, to_host=to_host, to_device=to_device).items():
            rates[f"{name}_{kind}_gb_per_s"] = round(LARGE_NUMEL * 4 / statistics.median(seconds) / 1e9, 2)
    rates["bytes_are_right"] = bool(torch.equal(window, x.cpu()))
    staging.close(deadline_s=60)
    segment.close()
    return rates


def memory_back(start: int, free: Callable[[], int]) -> tuple[float, int]:
    """Seconds until the device's free memory is back at `start`, and the bytes still missing at the end."""
    began = time.monotonic()
    while (missing := start - free()) > SLACK_NBYTES and time.monotonic() - began < MEMORY_DEADLINE_S:
        time.sleep(0.005)
    return time.monotonic() - began, max(0, missing)


def peers(session: Session, count: int) -> Iterator[DevicePeer]:
    """Yield peers one after the other; the next ones start meanwhile."""
    waiting: list[DevicePeer] = []
    for number in range(count):
        while len(waiting) < min(6, count - number):
            waiting.append(session.new_peer())
        with waiting.pop(0) as peer:
            yield peer


def kill_readers(session: Session) -> dict[str, Any]:
    """Kill readers with live views, every third with kernels running on them; this process is the owner."""
    seconds: list[float] = []
    missing: list[int] = []
    wrong = 0
    start = 0
    for number, peer in enumerate(peers(session, session.options.kills + 1)):
        session.lead(peer)
        exported = [session.pool.place(session.pool.empty((HELD_NUMEL,)).fill_(number + place)) for place in range(4)]
        for slot, meta in exported:
            peer.view(session.pool.export(slot, meta))
        wrong += peer.sums() != [float(HELD_NUMEL * (number + place)) for place in range(4)]
        if number % 3 == 2:
            peer.ask(b"B" + struct.pack("!I", BUSY_MS))
        peer.kill()
        exported.clear()
        del slot
        if number == 0:  # the first kill allocates what remains for good, so free memory after it is the reference
            time.sleep(2)
            start = torch.cuda.mem_get_info(session.device.ordinal)[0]
            continue
        back_s, lost = memory_back(start, lambda: torch.cuda.mem_get_info(session.device.ordinal)[0])
        seconds.append(back_s)
        missing.append(lost)
        wrong += session.pool.num_live
    return _kills(seconds, missing, wrong)


def _kills(seconds: list[float], missing: list[int], wrong: int) -> dict[str, Any]:
    return {
        "kills": len(seconds),
        "wrong_results": wrong,
        "memory_back_after_s_max": round(max(seconds, default=0.0), 3),
        "memory_missing_nbytes_max": max(missing, default=0),
    }


def kill_owners(session: Session) -> dict[str, Any]:
    """Kill owners whose tensors a reader views, every third before its work has run; the reader is a third process."""
    seconds: list[float] = []
    missing: list[int] = []
    outcomes: dict[str, int] = {}
    answered_s: list[float] = []
    wrong = 0
    start = 0
    with session.new_peer() as reader:
        for number, owner in enumerate(peers(session, session.options.kills + 1)):
            reader.open(owner.ask(b"M" + struct.pack("!Q", 2 * HELD_NUMEL * 4)), owner.process.pid)
            reader.view(owner.make(HELD_NUMEL, number))
            wrong += reader.sums() != [float(HELD_NUMEL * number)]
            if number % 3 == 2:
                pending = owner.make(SMALL_NUMEL, 1.0, BUSY_MS)
                reader.send(b"V" + struct.pack("!I", 0) + pending.pack())
                time.sleep(0.1)
                owner.kill()
                began = time.monotonic()
                outcome = WAITING + outcome_of(reader.receive)
                answered_s.append(time.monotonic() - began)
            else:
                owner.kill()
                outcome = ""
            expected = float(HELD_NUMEL * number)
            held = "views held: " + outcome_of(lambda expected=expected: read(reader, expected))
            for text in filter(None, (outcome, held)):
                outcomes[text] = outcomes.get(text, 0) + 1
            if held != HELD or outcome not in ("", NOTICED):
                break  # the reader answers no more questions; `problems` says so
            reader.ask(b"K")
            if number == 0:
                time.sleep(2)
                start = free_of(reader)
                continue
            back_s, lost = memory_back(start, lambda: free_of(reader))
            seconds.append(back_s)
            missing.append(lost)
    return {
        **_kills(seconds, missing, wrong),
        "outcomes": outcomes,
        "death_noticed_after_s_max": round(max(answered_s, default=0.0), 3),
    }


def free_of(peer: DevicePeer) -> int:
    (free,) = struct.unpack("!Q", peer.ask(b"F"))
    return int(free)


def read(reader: DevicePeer, expected: float) -> str:
    return "readable" if reader.sums(30.0) == [expected] else "other bytes"


def outcome_of(work: Callable[[], object]) -> str:
    """What the call returned, the code of its error, or that it hangs."""
    try:
        returned = work()
        return returned if isinstance(returned, str) else "given"
    except MoraError as error:
        return error.code
    except TimeoutError:
        return "HANG"


MEASUREMENTS: dict[str, Callable[[Session], dict[str, Any]]] = {
    "large": measure_large,
    "small": measure_small,
    "handles": measure_handles,
    "staging": measure_staging,
    "killed_readers": kill_readers,
    "killed_owners": kill_owners,
}


def main() -> int:
    """Measure, print, write; returns 0 if nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS))
    parser.add_argument("--peer-python", default=sys.executable)
    options = parser.parse_args()
    reason = why_unavailable()
    if reason is not None:
        print(f"nothing was measured: {reason}", file=sys.stderr)
        return 2
    faulthandler.dump_traceback_later(GIVE_UP_S, exit=True)
    forbid_torch_ipc()
    session = Session(options)
    results: dict[str, Any] = {
        "device": torch.cuda.get_device_name(options.device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "peer": session.peer.about(),
        "torch_ipc_functions": "all barred in both processes",
    }
    print(json.dumps(results))
    with session.peer:
        for name in options.only:
            results[name] = MEASUREMENTS[name](session)
            print(f"{name}: {json.dumps(results[name])}", flush=True)
            if options.json is not None:  # after each measurement, so that an interrupted run leaves its figures
                options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 1 if problems(results) else 0


def problems(results: dict[str, Any]) -> list[str]:
    """Return, and print, each result that differs from what is expected."""
    found = [name for name, key in (("large", "result_is_right"), ("staging", "bytes_are_right"))
             if not results.get(name, {key: True})[key]]  # fmt: skip
    for name in ("killed_readers", "killed_owners"):
        kills = results.get(name, {"wrong_results": 0, "memory_missing_nbytes_max": 0})
        strange = set(kills.get("outcomes", {})) - {HELD, NOTICED}
        if strange or kills["wrong_results"] or kills["memory_missing_nbytes_max"] > SLACK_NBYTES:
            found.append(name)
    print("problems: " + (", ".join(found) if found else "none"))
    return found


if __name__ == "__main__":
    sys.exit(main())
