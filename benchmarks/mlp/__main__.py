"""`python -m benchmarks.mlp`: two stages of a multilayer perceptron trained jointly by Mora and by other libraries."""

from __future__ import annotations

import argparse
import sys

from benchmarks.figures import add_json_option, publish
from benchmarks.mlp.measurement import Plan, measure
from benchmarks.mlp.report import as_report


def main() -> int:
    """Exit code 1 if weights differ, because the times are then not comparable."""
    parser = argparse.ArgumentParser(prog="benchmarks.mlp", description=__doc__)
    add_json_option(parser)
    parser.add_argument("--width", type=int, action="append", help="width of the stages (default: 256 and 2048)")
    parser.add_argument(
        "--rounds", type=int, default=Plan.num_rounds, help="turns of each trainer, the first is warm-up"
    )
    arguments = parser.parse_args()
    widths = tuple(arguments.width or Plan.widths)
    report = as_report(*measure(Plan(widths=widths, num_rounds=arguments.rounds)))
    publish(report, arguments.json)
    return 0 if report["weights_equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
