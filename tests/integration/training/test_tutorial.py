"""The tutorial, followed to the letter from an empty folder.

`python test_tutorial.py` shows the terminal and the seconds of each section; MORA can name another checkout.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from mora_launch.environments.environment import Environment
from mora_launch.environments.installer import uv_variables

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "tutorial.md"
_BLOCK = re.compile(r"^## (.+?)$|^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_DEADLINE_S = 1500


def parts() -> dict[str, str]:
    """The page's commands by title of their section."""
    found: dict[str, str] = {}
    title = ""
    for match in _BLOCK.finditer(PAGE.read_text(encoding="utf-8")):
        title = match[1] or title
        if match[2]:
            found[title] = found.get(title, "") + match[2]
    return found


def script() -> str:
    """All commands of the page, with a line `-- SECONDS TITLE` before each section and one after the last."""
    told = [f'echo "-- $SECONDS {title}"\n{commands}' for title, commands in parts().items()]
    return "set -euo pipefail\n" + "".join(told) + 'echo "-- $SECONDS end"\n'


def followed(folder: Path) -> str:
    """Run the script in an empty folder; returns what it prints."""
    variables = {"MORA": str(ROOT), **uv_variables()}
    done = subprocess.run(
        ["bash", "-c", script()], cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False, timeout=_DEADLINE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def remove_built(folder: Path) -> None:
    """Remove what the launcher has built for an environment."""
    venv = Environment.of_folder(folder).venv
    assert venv is not None
    if venv.folder.is_symlink():
        venv.folder.unlink()
    else:
        shutil.rmtree(venv.folder, ignore_errors=True)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    if (tmp_path / "film_look" / "mora-env.toml").exists():
        remove_built(tmp_path / "film_look")


def test_the_page_has_commands_in_every_numbered_section() -> None:
    numbers = [int(title.partition(".")[0]) for title in parts()]
    assert numbers == list(range(1, 10))


@pytest.mark.long
@pytest.mark.timeout(_DEADLINE_S + 60)
def test_a_newcomer_who_pastes_every_block_trains_a_model_in_a_chain(empty: Path) -> None:
    said = followed(empty)
    assert "FAILED" not in said
    run = empty / "film_look" / "run"
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [step["step"] for step in steps] == list(range(10)), "eight steps, and two after it was resumed"
    assert all(step["gradient_norm"]["film"] > 0.0 for step in steps)
    assert (run / "samples" / "contact-sheet.png").is_file()


def _tell_times(said: str) -> None:
    marks = re.findall(r"^-- (\d+) (.+)$", said, re.MULTILINE)
    for (start_s, title), (end_s, _) in pairwise(marks):
        print(f"{int(end_s) - int(start_s):5} s  {title}")
    print(f"{int(marks[-1][0]) / 60:5.1f} minutes in all")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        try:
            said = followed(Path(name))
        finally:
            if (Path(name) / "film_look" / "mora-env.toml").exists():
                remove_built(Path(name) / "film_look")
    print(said)
    _tell_times(said)
