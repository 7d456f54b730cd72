"""A question to the package of an environment, by running its interpreter."""

from __future__ import annotations

from mora_runtime.errors import EnvironmentFailed
from mora_runtime.files.shown_text import shown_line

from mora_launch.environments.asked_program import ask_program
from mora_launch.environments.environment import Environment
from mora_launch.environments.venvs import ROOT

_MAX_LINE_LENGTH = 300  # of what a program says that fails


def ask_environment(
    environment: Environment, command: str, request: str, *, asked: str, deadline_s: float | None = None
) -> str:
    """Run a command of an environment's package, and return what it wrote.

    Args:
        command: a word of `python -m PACKAGE`.
        asked, deadline_s: as for `ask_program`.

    Raises:
        EnvironmentFailed: it cannot be run, it failed, or gave no answer in time.
    """
    words = [str(environment.python), "-m", environment.package, command]
    try:
        done = ask_program(words, request, asked=asked, folder=ROOT, deadline_s=deadline_s)
    except OSError as error:
        raise EnvironmentFailed(f"{asked}: {environment.python} cannot be run: {error.strerror}") from None
    if done.returncode != 0:
        said = (done.complaints.strip().splitlines() or [f"it ended with {done.returncode} and said nothing"])[-1]
        raise EnvironmentFailed(f"{asked} failed: {shown_line(said, _MAX_LINE_LENGTH)}")
    return done.output
