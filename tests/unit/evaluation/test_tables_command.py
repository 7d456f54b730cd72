"""`mora tables` and `mora evaluate` on the command line, without servers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from mora_launch.cli import cli
from mora_launch.environments.venvs import ROOT
from mora_launch.evaluation.output.summary import summary
from mora_launch.evaluation.suite.dimensions import QUALITY
from mora_runtime.errors import SettingsError

from .made_results import outcome

TOYS = str(ROOT / "tests" / "toy_agents" / "metrics.yaml")


def evaluation(folder: Path, **more: str) -> Path:
    folder.mkdir()
    made = outcome({name: dict.fromkeys(QUALITY, 0.25) for name in ("a", "b")}, **more)
    (folder / "summary.json").write_text(json.dumps(summary(made)))
    return folder


def test_tables_have_rows_of_every_evaluation_in_the_table_of_its_task(tmp_path: Path) -> None:
    first, second = evaluation(tmp_path / "x"), evaluation(tmp_path / "y", task="extend")
    done = CliRunner().invoke(
        cli, ["tables", str(first), str(second), "--config", TOYS, "-o", str(tmp_path / "tables")]
    )
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "tables" / "tables.json").read_text())
    with_rows = {table["title"] for table in found if table["own"]}
    assert with_rows == {"Table 1: text-to-video", "Table 5: ablation, text-to-video", "Table 2: extend videos"}
    assert "0.250 ± 0.000 (n 2)" in (tmp_path / "tables" / "tables.md").read_text()
    assert "Where the prompts are not VBench&#39;s" in (tmp_path / "tables" / "tables.html").read_text()


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "has no summary.json and is no run"), ("{", "cannot be read"), ("{}", "lacks name, task")],
)
def test_a_folder_that_is_no_evaluation_is_refused(tmp_path: Path, content: str | None, said: str) -> None:
    (tmp_path / "x").mkdir()
    if content is not None:
        (tmp_path / "x" / "summary.json").write_text(content)
    done = CliRunner().invoke(cli, ["tables", str(tmp_path / "x"), "--config", TOYS, "-o", str(tmp_path / "tables")])
    assert isinstance(done.exception, SettingsError)
    assert said in str(done.exception)


@pytest.mark.parametrize("words", [[], ["videos", "--generate", "configs/tiny.yaml"]])
def test_either_videos_are_given_or_made(words: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["evaluate", *words, "-o", str(tmp_path)])
    assert done.exit_code == 2
    assert "give a SOURCE, or --generate CONFIG" in done.output
