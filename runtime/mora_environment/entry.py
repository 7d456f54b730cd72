"""The commands of `python -m PACKAGE`, the same for every environment. Each imports only what it needs.

- `--settings FILE --supervisor-fd N`, or `serve` with the same: the server of one role.
- `options`: check options, JSON from standard input to standard output (`options_command`).
- `cost`: what an agent costs, JSON from standard input to standard output (`cost_command`).
- `export`: write LoRA adapters for other libraries, JSON from standard input to standard output (`adapters`).
- `fetch`: download and convert what agents load, JSON from standard input to standard output (`weights`).
- `kinds`: the names of the kinds, as JSON.
- `keys`: the options of every kind in words, as JSON (`keys_command`).
- `tiny KIND FOLDER [--task NAME --NAME FOLDER ...]`: make tiny models (`tiny_command`).
- `check [KIND ...] [--json FILE]`: run the conformance suite (`conformance`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from mora_runtime.errors import MoraError

from mora_environment.kind import Kind

_REFUSED = 2
# As in a server on the CPU: sums of MKL do not depend on where a tensor is in memory. And no progress bars.
_CHECK_VARIABLES = {"MKL_CBWR": "AUTO,STRICT", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}


def main(kinds: Mapping[str, Kind]) -> NoReturn:
    """Run the command that `sys.argv` names, and exit; the last line of an environment's `__main__`.

    Args:
        kinds: every kind of agent of this environment, by name.
    """
    raise SystemExit(_run(kinds, _package(), sys.argv[1:]))


def _run(kinds: Mapping[str, Kind], package: str, words: Sequence[str]) -> int:
    if words and (words[0] == "serve" or words[0] in ("--settings", "--supervisor-fd")):
        from mora_environment.server import serve_kinds

        return serve_kinds(kinds, package, words[words[0] == "serve" :])
    arguments, named = _parser(package).parse_known_args(words)
    if named and arguments.command != "tiny":
        _parser(package).error(f"unrecognized arguments: {' '.join(named)}")
    if arguments.command == "kinds":
        print(json.dumps(list(kinds)))
        return 0
    if arguments.command == "keys":
        from mora_environment.keys.keys_command import answer_keys

        json.dump(answer_keys(kinds), sys.stdout)
        return 0
    if arguments.command == "cost":
        from mora_environment.cost_command import answer_cost

        json.dump(answer_cost(kinds, package, json.load(sys.stdin)), sys.stdout)
        return 0
    if arguments.command == "export":
        from mora_environment.adapters.export_command import answer_export

        json.dump(answer_export(kinds, package, json.load(sys.stdin)), sys.stdout)
        return 0
    if arguments.command == "fetch":
        from mora_environment.weights.fetch_command import answer_fetch

        answer_fetch(kinds, package)
        return 0
    if arguments.command == "options":
        from mora_environment.options_command import answer_request

        json.dump(answer_request(kinds, package, json.load(sys.stdin)), sys.stdout)
        return 0
    try:
        if arguments.command == "check":
            return _check(kinds, package, arguments)
        return _make_tiny(kinds, package, arguments, named)
    except MoraError as error:
        print(error, file=sys.stderr)
        return _REFUSED


def _make_tiny(kinds: Mapping[str, Kind], package: str, arguments: argparse.Namespace, named: list[str]) -> int:
    from mora_environment.tiny_command import make_tiny

    options = make_tiny(kinds, package, arguments.kind, arguments.folder, arguments.task, named)
    print(json.dumps(options))
    return 0


def _check(kinds: Mapping[str, Kind], package: str, arguments: argparse.Namespace) -> int:
    for name, value in _CHECK_VARIABLES.items():
        os.environ.setdefault(name, value)
    from mora_environment.conformance.suite import check_kinds

    return check_kinds(kinds, package, arguments.kinds, arguments.json)


def _parser(package: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {package}", allow_abbrev=False)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="serve|options|cost|export|fetch|kinds|keys|tiny|check"
    )
    commands.add_parser("options", help="check one agent's options: JSON from standard input to standard output")
    commands.add_parser("cost", help="count what one agent costs: JSON from standard input to standard output")
    commands.add_parser("export", help="write LoRA adapters for other libraries: JSON from standard input")
    commands.add_parser("fetch", help="fetch what agents load: JSON from standard input to standard output")
    commands.add_parser("kinds", help="print the names of the kinds as JSON")
    commands.add_parser("keys", help="print the options of every kind as JSON")
    tiny = commands.add_parser("tiny", help="make tiny models; print the options that load them", allow_abbrev=False)
    tiny.add_argument("kind", metavar="KIND")
    tiny.add_argument("folder", metavar="FOLDER", type=Path)
    tiny.add_argument("--task", help="pre-train them for this task; it takes its data as `--NAME FOLDER`")
    check = commands.add_parser("check", help="run the conformance suite", allow_abbrev=False)
    check.add_argument("kinds", metavar="KIND", nargs="*", help="default: all")
    check.add_argument("--json", metavar="FILE", type=Path, help="also write the outcomes there")
    return parser


def _package() -> str:
    """Name of the package that `python -m` runs."""
    found: str | None = getattr(sys.modules["__main__"], "__package__", None)
    return found or "environment"
