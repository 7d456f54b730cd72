"""`mora tables`: the paper's tables with rows of ours, from evaluations, or from runs that are evaluated first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mora_runtime.errors import RoleFailed, SettingsError, StorageError
from mora_runtime.files.foreign_file import read_foreign
from mora_runtime.files.foreign_json import parse_object
from mora_runtime.files.fresh_file import write_fresh
from rich.console import Console

from mora_launch.evaluation.command import EXIT_INTERRUPTED, SUMMARY_FILE, evaluate
from mora_launch.evaluation.config import EvaluationConfig
from mora_launch.evaluation.evaluation import EvaluateOptions
from mora_launch.evaluation.output.tables import filled_tables, markdown, notes_on, own_rows
from mora_launch.evaluation.suite.dimensions import EIGHT
from mora_launch.limits import MAX_RECORD_NBYTES
from mora_launch.resuming.run_configs import has_run
from mora_launch.web.page_templates import page_templates

_TEMPLATES = page_templates("mora_launch.evaluation")
_KEYS = ("name", "task", "modulation", "groups", "dimensions", "totals", "shapes", "made", "prompts", "notes")


def tables(runs: Sequence[Path], output: Path, config: EvaluationConfig, console: Console) -> int:
    """Write `tables.html`, `tables.md` and `tables.json`.

    Args:
        runs: folders of evaluations, or of runs; the samples of a run are evaluated into a folder in `output`.

    Returns:
        0, or 130 when stopped by Ctrl-C.

    Raises:
        MoraError: a folder is neither, or an evaluation failed.
    """
    summaries = []
    for run in runs:
        if not (run / SUMMARY_FILE).is_file() and has_run(run):
            evaluated = output / run.resolve().name
            code = evaluate(_of_run(run, evaluated), config, console)
            if code == EXIT_INTERRUPTED:
                return code
            if code != 0:
                raise RoleFailed(f"{run}: some measurements failed; the same command tries them again")
            run = evaluated
        summaries.append(read_summary(run))
    rows = [row for about in summaries for row in own_rows(about)]
    filled, notes = filled_tables(rows), notes_on(summaries)
    content = [{**vars(table), "notes": notes} for table in filled]
    page = _TEMPLATES.get_template("tables.html").render(tables=filled, notes=notes)
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_fresh(output / "tables.md", markdown(filled, notes))
        write_fresh(output / "tables.json", json.dumps(content, indent=1) + "\n")
        write_fresh(output / "tables.html", page)
    except OSError as error:
        raise StorageError(f"-o {output}: cannot be written: {error.strerror}; choose another folder") from None
    console.print(f"{output / 'tables.html'}, {output / 'tables.md'}", markup=False, soft_wrap=True)
    return 0


def read_summary(folder: Path) -> dict[str, Any]:
    """Read the summary of an evaluation. Raises: SettingsError: there is none, or it was written by another version."""
    path = folder / SUMMARY_FILE
    try:
        content = parse_object(read_foreign(path, MAX_RECORD_NBYTES))
    except FileNotFoundError:
        raise SettingsError(
            f"{folder}: has no {SUMMARY_FILE} and is no run; expected the folder of an evaluation or a run"
        ) from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: cannot be read ({error}); evaluate again") from None
    lacking = [key for key in _KEYS if key not in content]
    if lacking:
        raise SettingsError(f"{path}: lacks {', '.join(lacking)}; repeat its `mora evaluate`, which adds them")
    return content


def _of_run(run: Path, output: Path) -> EvaluateOptions:
    return EvaluateOptions((run,), "all", EIGHT, output, name=run.resolve().name)
