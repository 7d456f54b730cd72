"""`python -m mora_env_vbench.goldens FOLDER [--prefix P] [--whole] --json FILE` compares with reference values.

FOLDER contains NAME.json and NAME.data.safetensors; the `kind` in NAME.json says what is compared, and files of other
kinds are left out. FILE gets

    {"cases": {"NAME/CASE": DIFFERENCE}, "worst": DIFFERENCE, "failed": ["NAME/CASE"], "left_out": ["NAME"]}

A difference is relative to the largest reference value where that is above 1. It is null where values have another
shape, are not finite, are another decision, or where the case cannot run. Exit codes: 0, every case is within its
tolerance; 1, one is not, or cannot run; 2, the folder has no case that was to run.

Whole metrics need gigabytes of made weights and many minutes: they run with --whole, or if the prefix names them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError

from mora_env_vbench.goldens import (
    formula_cases,
    layout_cases,
    metric_cases,
    model_cases,
    preparation_cases,
    recipe_cases,
)
from mora_env_vbench.goldens.case_file import Case, CaseFile
from mora_env_vbench.goldens.comparison import Differences

EXIT_EQUAL, EXIT_DIFFERENT, EXIT_NOTHING = 0, 1, 2
WHOLE = "eval_metrics"  # the kind of whole metrics
_LAYOUTS = "published_state_dicts"
Check = Callable[[Differences], None]
_SIMPLE: dict[str, tuple[Callable[[CaseFile, Case, Differences], None], float]] = {
    "eval_prep": (preparation_cases.check_preparation, preparation_cases.TOLERANCE),
    "eval_formulas": (formula_cases.check_formula, formula_cases.TOLERANCE),
    "eval_models": (model_cases.check_network, model_cases.TOLERANCE),
    "eval_recipe": (recipe_cases.check_recipe, recipe_cases.TOLERANCE),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a folder, write the outcome, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mora_env_vbench.goldens", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, help="with the reference files")
    parser.add_argument("--prefix", default="", help="check only files whose names begin with it")
    parser.add_argument("--whole", action="store_true", help="also check whole metrics of the published sizes")
    parser.add_argument("--json", type=Path, required=True, help="file for the outcome")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)  # as the reference values were computed; sums of several threads differ in the last bits
    try:
        found, left_out = check_folder(chosen.folder, chosen.prefix, with_whole=chosen.whole)
    except (OSError, ValueError, SafetensorError) as error:
        print(f"{chosen.folder}: cannot be read as reference files: {type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_NOTHING
    failed = [name for name, differences in found.items() if not differences.is_within]
    told = {name: _shown(differences.largest) for name, differences in found.items()}
    worst = _shown(max((differences.largest for differences in found.values()), default=0.0))
    outcome = {"cases": told, "worst": worst, "failed": failed, "left_out": left_out}
    chosen.json.write_text(json.dumps(outcome, indent=1) + "\n", encoding="utf-8")
    if not found:
        print(f"{chosen.folder}: expected {chosen.prefix}*.json with cases to run, found none", file=sys.stderr)
        return EXIT_NOTHING
    return EXIT_DIFFERENT if failed else EXIT_EQUAL


def check_folder(
    folder: Path, prefix: str = "", *, with_whole: bool = False
) -> tuple[dict[str, Differences], list[str]]:
    """Compare all files of known kinds; by file and case the differences, and the files that were left out.

    Args:
        with_whole: also whole metrics; they also run if the prefix is longer than what all file names share.
    """
    found: dict[str, Differences] = {}
    left_out: list[str] = []
    for path in sorted(folder.glob(f"{prefix}*.json")):
        file = CaseFile(path)
        if file.kind == WHOLE and not with_whole and WHOLE.rpartition("_")[2] not in prefix:
            left_out.append(file.name)
            continue
        for name, tolerance, check in checks_of(file):
            found[f"{file.name}/{name}"] = _run(f"{file.name}/{name}", tolerance, check)
    return found, left_out


def checks_of(file: CaseFile) -> Iterator[tuple[str, float, Check]]:
    """Name, tolerance and comparison of each case of a file; none of a file of another kind."""
    if file.kind == _LAYOUTS:
        for name in layout_cases.layout_names(file):
            yield name, layout_cases.TOLERANCE, partial(layout_cases.check_layout, file, name)
    elif file.kind == WHOLE:
        measurements = metric_cases.Measurements(file)
        for case in file.cases:
            yield case.name, metric_cases.TOLERANCE, partial(metric_cases.check_metric, measurements, case)
    elif file.kind in _SIMPLE:
        check, tolerance = _SIMPLE[file.kind]
        for case in file.cases:
            yield case.name, tolerance, partial(check, file, case)


def _run(name: str, tolerance: float, check: Check) -> Differences:
    found = Differences(tolerance)
    try:
        check(found)
        if not found.count:
            raise ValueError("it has no value to compare")
    except Exception as error:
        # a case that cannot run must not hide the others, and code of any network may raise any class
        print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
        found.fail()
    return found


def _shown(difference: float) -> float | None:
    return difference if math.isfinite(difference) else None


if __name__ == "__main__":
    sys.exit(main())
