"""The contact sheet of the six tasks: a case for each, whose files are those that the task needs."""

from __future__ import annotations

from pathlib import Path

import pytest
from mora_data.moving_shapes import is_held_out
from mora_launch.config.train_config import load_config
from mora_launch.tasks.catalog import TASKS
from mora_launch.tasks.request import check_fields
from PIL import Image

from benchmarks.task_pictures import CASES, Case

ROOT = Path(__file__).resolve().parents[3]
MAX_NBYTES = 200_000


def test_every_task_has_one_case() -> None:
    assert [case.task for case in CASES] == list(TASKS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.task)
def test_a_case_is_a_valid_request_of_what_no_training_shows(case: Case) -> None:
    config = load_config(ROOT / "configs" / "tiny-svd.yaml", [])
    check_fields(case.request(config), config.serving)
    assert all(is_held_out(shown) for shown in (*([] if case.picture is None else [case.picture]), *case.videos))


def test_the_sheet_of_the_page_is_small_and_has_a_row_for_each_task() -> None:
    path = ROOT / "docs" / "tasks-svd.webp"
    assert path.stat().st_size < MAX_NBYTES
    with Image.open(path) as sheet:
        assert sheet.height > len(TASKS) * 64
