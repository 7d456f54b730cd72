"""`python -m benchmarks.equal_stages`: a step of three equal stages, compared with its critical path."""

from __future__ import annotations

import argparse
import sys

from benchmarks.equal_stages.measurement import Plan, measure, meets_targets
from benchmarks.figures import add_json_option, publish
from benchmarks.machine import describe_machine


def main() -> int:
    """Exit code 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="benchmarks.equal_stages", description=__doc__)
    add_json_option(parser)
    parser.add_argument("--forward-ms", type=float, action="append", help="time of a forward (default: 2, 10 and 50)")
    parser.add_argument("--micro-batches", type=int, default=Plan.num_micro_batches, help="micro-batches of a step")
    parser.add_argument("--rounds", type=int, default=Plan.num_rounds, help="steps of each kind, the first is warm-up")
    arguments = parser.parse_args()
    forwards_s = tuple(each / 1e3 for each in arguments.forward_ms or ()) or Plan.forwards_s
    figures = measure(Plan(forwards_s, arguments.micro_batches, arguments.rounds))
    publish({"machine": describe_machine(), **figures}, arguments.json)
    return 0 if meets_targets(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
