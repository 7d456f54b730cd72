"""Faulty child: any bytes on its link end only that child, by name, and never the launcher that watches it."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable

import pytest
from mora_runtime.limits import MAX_ROLE_ERROR_LENGTH, MAX_ROLE_LINE_NBYTES
from mora_runtime.process.role_messages import (
    BadRoleMessage,
    Beat,
    Failed,
    Lines,
    Ready,
    checked_vitals,
    decode,
    encode,
)
from mora_runtime.process.role_process import RoleProcess
from mora_runtime.process.supervisor import RolesEnded, Supervisor

pytestmark = pytest.mark.timeout(60)
Faulty = Callable[..., RoleProcess]

NO_MESSAGES = {
    "garbage": b"not json",
    "a list": b"[1]",
    "a text": b'"ready"',
    "nothing": b"",
    "null": b"null",
    "no UTF-8": b'{"event": "ready\xff"}',
    "deep lists": b"[" * 30_000,
    "deep objects": b'{"event":' * 6_000,
    "deep vitals": b'{"event": "beat", "vitals": {"a": [[[[1]]]]}}',
    "no event": b"{}",
    "an unknown event": b'{"event": "exec"}',
    "an event of another kind": b'{"event": ["ready"]}',
    "an unknown key": b'{"event": "ready", "role": "video.0"}',
    "a key twice": b'{"event": "ready", "event": "failed"}',
    "vitals as a list": b'{"event": "beat", "vitals": [1]}',
    "vitals as null": b'{"event": "beat", "vitals": null}',
    "no vitals": b'{"event": "beat"}',
    "a vital that is a list": b'{"event": "beat", "vitals": {"busy": []}}',
    "a vital that is NaN": b'{"event": "beat", "vitals": {"busy_s": NaN}}',
    "a vital that is infinite": b'{"event": "beat", "vitals": {"x": 1e999}}',
    "a size that is a text": b'{"event": "beat", "vitals": {"rss_nbytes": "1"}}',
    "a size below nothing": b'{"event": "beat", "vitals": {"rss_nbytes": -1}}',
    "a number that is true": b'{"event": "beat", "vitals": {"num_fds": true}}',
    "a step that is a text": b'{"event": "beat", "vitals": {"step": "7"}}',
    "a time that is a text": b'{"event": "beat", "vitals": {"busy_s": "7"}}',
    "a number without end": b'{"event": "beat", "vitals": {"x": ' + b"9" * 5000 + b"}}",
    "a long vital": b'{"event": "beat", "vitals": {"busy": "' + b"x" * 300 + b'"}}',
    "a long name": b'{"event": "beat", "vitals": {"' + b"x" * 300 + b'": 1}}',
    "a name of escape codes": b'{"event": "beat", "vitals": {"\\u001b[2J": 1}}',
    "too many vitals": json.dumps({"event": "beat", "vitals": {f"v{n}": n for n in range(65)}}).encode(),
    "an error of another kind": b'{"event": "failed", "error": {"a": 1}, "is_recoverable": true}',
    "an error without end": b'{"event": "failed", "error": "' + b"x" * 9000 + b'", "is_recoverable": true}',
    "recoverable by a text": b'{"event": "failed", "error": "x", "is_recoverable": "yes"}',
    "half a pair": b'{"event": "failed", "error": "\\ud800", "is_recoverable": true}',
    "a long line": b" " * 70_000 + b'{"event": "ready"}',
}


@pytest.mark.parametrize("name", NO_MESSAGES)
def test_an_invalid_line_gives_one_error_in_one_line(name: str) -> None:
    with pytest.raises(BadRoleMessage) as caught:
        [decode(line) for line in Lines().take(NO_MESSAGES[name] + b"\n")]
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", NO_MESSAGES)
def test_a_child_that_sends_an_invalid_line_is_killed_by_name_and_may_start_again(faulty: Faulty, name: str) -> None:
    with Supervisor(print) as supervisor:
        honest = faulty(supervisor, 'say(b\'{"event": "ready"}\\n\')', "video.0")
        child = faulty(supervisor, f"say({NO_MESSAGES[name]!r} + b'\\n')")
        with pytest.raises(RolesEnded, match=r"image\.0 sent invalid bytes on its link") as caught:
            supervisor.wait_ready([child], deadline_s=20)
        assert caught.value.is_recoverable
        assert child.process.returncode is not None
        assert child.vitals == {}
        supervisor.discard([child])
        assert supervisor.wait_ready([honest], deadline_s=20)
        assert honest.process.poll() is None


def test_an_endless_line_takes_neither_memory_nor_time(faulty: Faulty) -> None:
    with Supervisor(print) as supervisor:
        tracemalloc.start()
        child = faulty(supervisor, "say(b'x' * (15 << 20))")
        started_s = time.thread_time()  # of this process alone: others may use the machine too
        with pytest.raises(RolesEnded, match=r"a line of more than 65536 bytes.* and was killed"):
            supervisor.wait_ready([child], deadline_s=20)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert time.thread_time() - started_s < 5
    assert peak < 2 << 20


def test_many_lines_at_once_and_halves_of_lines_are_read_as_messages(faulty: Faulty) -> None:
    beats = b"".join(encode(Beat({"step": number})) for number in range(3000))
    ready = encode(Ready())
    body = f"say({beats!r}); say({ready[:7]!r}); time.sleep(0.2); say({ready[7:]!r})"
    with Supervisor(print) as supervisor:
        child = faulty(supervisor, body)
        assert supervisor.wait_ready([child], deadline_s=20)
        assert child.vitals == {"step": 2999}


def test_a_child_that_sends_without_end_does_not_hide_other_children(faulty: Faulty) -> None:
    with Supervisor(print) as supervisor:
        talker = faulty(supervisor, 'while True: say(b\'{"event": "beat", "vitals": {}}\\n\' * 100)')
        other = faulty(supervisor, 'say(b\'{"event": "ready"}\\n\')', "video.0")
        assert supervisor.wait_ready([other], deadline_s=20)
        assert talker.process.poll() is None
        talker.kill()


def test_processes_of_a_dead_child_cannot_keep_its_link_open(faulty: Faulty) -> None:
    body = """
if os.fork():
    os._exit(1)
while True:
    say(b'{"event": "beat", "vitals": {}}\\n' * 100)
"""
    with Supervisor(print) as supervisor:
        child = faulty(supervisor, body)
        with pytest.raises(RolesEnded, match="ended by itself with exit code 1"):
            supervisor.wait_ready([child], deadline_s=20)


def test_escape_codes_of_a_child_reach_no_terminal(faulty: Faulty) -> None:
    words = "bad\x1b]0;title\x07 \x9b2J\x1b[31m news\r \u202eevil"
    body = f"""
import json
print({words!r}, flush=True)
say(json.dumps({{"event": "beat", "vitals": {{"busy": {words!r}}}}}).encode() + b"\\n")
say(json.dumps({{"event": "failed", "error": {words!r}, "is_recoverable": False}}).encode() + b"\\n")
sys.exit(1)
"""
    with Supervisor(print) as supervisor:
        child = faulty(supervisor, body)
        with pytest.raises(RolesEnded) as caught:
            supervisor.wait_ready([child], deadline_s=20)
        for text in (str(caught.value), str(child.vitals["busy"]), child.log_tail()):
            assert "title" in text
            assert text.replace("\n", "").isprintable()


def test_a_huge_log_or_a_pipe_as_log_is_read_within_bounds(faulty: Faulty) -> None:
    with Supervisor(print) as supervisor:
        child = faulty(supervisor, "print('x' * (5 << 20) + '\\nlast', flush=True); say(b'{\"event\": \"ready\"}\\n')")
        assert supervisor.wait_ready([child], deadline_s=20)
        tracemalloc.start()
        tail = child.log_tail()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert tail.endswith("last")
    assert len(tail) < 20_000
    assert peak < 2 << 20


def test_messages_of_an_honest_child_are_read_back_unchanged() -> None:
    vitals = {"busy": "forward", "busy_s": 1.5, "num_calls": 3, "step": 4, "rss_nbytes": 1 << 40, "x": None, "y": True}
    for message in (Ready(), Failed("two\nlines", True), Beat(vitals)):
        assert decode(encode(message).rstrip(b"\n")) == message
    assert checked_vitals(vitals) == vitals


@pytest.mark.parametrize("unit", ["x", "\x1b[31m", "\u202e", "\U0001f600", '"', "\\", "\ud800", "\n"])
def test_the_longest_error_is_still_a_message(unit: str) -> None:
    line = encode(Failed(unit * 100_000))
    assert len(line) <= MAX_ROLE_LINE_NBYTES
    (only,) = Lines().take(line)
    message = decode(only)
    assert isinstance(message, Failed)
    assert len(message.error) <= MAX_ROLE_ERROR_LENGTH


def test_a_heartbeat_with_odd_values_is_still_accepted() -> None:
    line = encode(Beat({"busy": "x" * 1000 + "\x1b", "z": float("nan"), **{f"v{n}": n for n in range(100)}}))
    assert isinstance(decode(line.rstrip(b"\n")), Beat)
