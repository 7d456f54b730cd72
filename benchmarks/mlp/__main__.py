"""`python -m benchmarks.mlp`: two stages of a multilayer perceptron trained jointly, by Mora and by others."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.mlp.measurement import Plan, measure
from benchmarks.mlp.report import as_report


def main() -> int:
    """Exit code 1 where weights differ: the times then compare different things."""
    parser = argparse.ArgumentParser(prog="benchmarks.mlp", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--width", type=int, action="append", help="of the stages (default: 256 and 2048)")
    parser.add_argument("--rounds", type=int, default=Plan.num_rounds, help="turns of each, the first is warm-up")
    arguments = parser.parse_args()
    widths = tuple(arguments.width or Plan.widths)
    report = as_report(*measure(Plan(widths=widths, num_rounds=arguments.rounds)))
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return 0 if report["weights_equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
