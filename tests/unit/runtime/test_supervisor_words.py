"""A child accepts only whole words from the launcher."""

import os
import socket
import subprocess
import sys
import time

import pytest
from mora_runtime.process.supervisor_link import EXIT_ORPHANED

_CHILD = """
import sys, time
from mora_runtime.process.supervisor_link import SupervisorLink
link = SupervisorLink(int(sys.argv[1]))
link.ready()
print(link.wait_for_go(), link.stop_requested(), flush=True)
time.sleep(60)
"""


def said(*words: bytes) -> tuple[str, int | None]:
    """Output of a child after these words, and its exit code if it has ended."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(theirs.fileno())], pass_fds=[theirs.fileno()], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        theirs.close()
        assert ours.recv(4096).startswith(b'{"event": "ready"')
        for word in words:
            ours.send(word)
            time.sleep(0.3)
        os.set_blocking(child.stdout.fileno(), False)
        deadline = time.monotonic() + 2
        answer = None
        while answer is None and child.poll() is None and time.monotonic() < deadline:
            answer = child.stdout.read()
            time.sleep(0.05)
        code = child.poll()
        child.kill()
        child.wait(10)
        child.stdout.close()
    return (answer or b"").decode().strip(), code


def test_words_are_read_as_whole_lines() -> None:
    assert said(b"g", b"o\n") == ("True False", None)
    assert said(b"stop\n") == ("False True", None)


@pytest.mark.parametrize("words", [b"lego\n", b"go", b"nonstop\ncargo\n", b"go stop\n"])
def test_parts_of_other_words_are_ignored(words: bytes) -> None:
    answer, code = said(words)
    assert answer == ""
    assert code is None


def test_an_invalid_word_from_the_launcher_ends_the_child() -> None:
    assert said(b"x" * 1000) == ("", EXIT_ORPHANED)
