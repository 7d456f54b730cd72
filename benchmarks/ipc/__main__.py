"""`mora bench ipc`: the cost of sending a tensor to another process and one back, compared with other libraries."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch
from mora_trainer.terminal import Console
from rich.progress import Progress

from benchmarks.ipc.benchmark import Order, run
from benchmarks.ipc.peers import FAMILIES, HOW_TO_INSTALL, Family
from benchmarks.ipc.plan import FULL, MIB, QUICK, REFERENCE_NBYTES
from benchmarks.ipc.plot import draw
from benchmarks.ipc.table import show

_PIPED_WIDTH = 160
_QUICK_REFERENCE_NBYTES = 16 * MIB
_LEAST_SOAK = 10_000


def main() -> None:
    """Command line of the measurement."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.soak and arguments.soak < _LEAST_SOAK:
        parser.error(f"argument --soak: expected at least {_LEAST_SOAK} messages, got {arguments.soak}")
    torch.set_num_threads(1)
    with (
        Progress(console=Console(stderr=True), transient=True) as progress,
        tempfile.TemporaryDirectory(prefix="mora-ipc-") as folder,
    ):
        report = run(_order(arguments), Path(folder), progress)
    show(report, Console(markup=True, soft_wrap=True, width=None if sys.stdout.isatty() else _PIPED_WIDTH))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        draw(report, arguments.json.with_suffix(".svg"))


def _parser() -> argparse.ArgumentParser:
    names = [family.module for family in FAMILIES]
    parser = argparse.ArgumentParser(
        prog="mora bench ipc",
        description=__doc__,
        epilog=f"Ray is an optional extra: {HOW_TO_INSTALL}",
    )
    parser.add_argument("--json", type=Path, help="also write the result to this file, and a plot next to it (.svg)")
    parser.add_argument(
        "--quick", action="store_true", help="two sizes, few rounds and few peers, to see that it works"
    )
    parser.add_argument("--soak", type=int, default=0, metavar="N", help="then run N messages of mixed size")
    parser.add_argument("--scale", type=float, default=1.0, metavar="F", help="F times as many rounds (default 1)")
    parser.add_argument("--bytes", type=int, nargs="+", metavar="N", help="measure only these sizes")
    parser.add_argument(
        "--peers", nargs="*", choices=names, metavar="PEER", help=f"measure only these peers: {', '.join(names)}"
    )
    return parser


def _order(arguments: argparse.Namespace) -> Order:
    plans = QUICK if arguments.quick else FULL
    chosen = [plan for plan in plans if arguments.bytes is None or plan.nbytes in arguments.bytes]
    if not chosen:
        sizes = ", ".join(str(plan.nbytes) for plan in plans)
        raise SystemExit(
            f"mora bench ipc: --bytes {arguments.bytes}: none of these sizes is measured; choose from {sizes}"
        )
    reference_nbytes = _QUICK_REFERENCE_NBYTES if arguments.quick else REFERENCE_NBYTES
    plans_to_run = [plan.scaled(arguments.scale) for plan in chosen]
    return Order(plans_to_run, _families(arguments), reference_nbytes, arguments.soak)


def _families(arguments: argparse.Namespace) -> list[Family]:
    """Families chosen by the options; by default all that are installed, or few of them with `--quick`."""
    if arguments.peers is not None:
        wanted = [family for family in FAMILIES if family.module in arguments.peers]
    else:
        wanted = [family for family in FAMILIES if family.is_quick or not arguments.quick]
    return [family for family in wanted if family.is_installed]


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("mora bench ipc: interrupted; all processes that it started have ended")
