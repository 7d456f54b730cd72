"""Structured logs."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mora_runtime.process.logs import LogFields, start_logging
from mora_runtime.process.run_directory import RunDirectory


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[Any]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    with RunDirectory.create(tmp_path / "night-7", lock=True) as run:
        start_logging(run, role="image.0", generation=3)
        (handler,) = root.handlers
        yield lambda: [json.loads(line) for line in (run.logs / "image.0.3.jsonl").read_text().splitlines()]
        root.handlers[:] = before
        root.setLevel(level)
        handler.close()


def test_a_line_names_its_process_and_its_work(logged: Any) -> None:
    log = logging.getLogger("mora.test")
    with LogFields(step=4):
        with LogFields(peer="coordinator.0", req=9):
            log.warning("dropped %d frames", 2)
        log.warning("within the step")
    log.warning("after it")
    inner, outer, after = logged()
    assert {key: inner[key] for key in ("run", "role", "gen", "level", "event", "step", "peer", "req")} == {
        "run": "night-7", "role": "image.0", "gen": 3, "level": "WARNING", "event": "dropped 2 frames",
        "step": 4, "peer": "coordinator.0", "req": 9,
    }  # fmt: skip
    assert (outer["step"], "req" in outer) == (4, False)
    assert "step" not in after


def test_a_traceback_stays_in_one_line(logged: Any) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("mora.test").exception("failed")
    (line,) = logged()
    assert "ValueError: two\nlines" in line["traceback"]


def test_a_full_file_is_rotated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mora_runtime.process.logs.MAX_LOG_NBYTES", 4000)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    with RunDirectory.create(tmp_path / "run", lock=True) as run:
        start_logging(run, role="image.0", generation=1)
        for number in range(100):
            logging.getLogger("mora.test").info("line %d", number)
        (handler,) = root.handlers
        root.handlers[:] = before
        root.setLevel(level)
        handler.close()
        files = sorted(run.logs.iterdir())
        assert [path.name for path in files] == ["image.0.1.jsonl", "image.0.1.jsonl.1"]
        assert all(path.stat().st_size < 4000 + 500 for path in files)
        assert json.loads(files[0].read_text().splitlines()[-1])["event"] == "line 99"
