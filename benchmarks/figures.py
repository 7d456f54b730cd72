"""Options that benchmarks share, and writing a benchmark's figures to the terminal and, with `--json`, to a file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """`--json FILE`."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")


def add_set_option(parser: argparse.ArgumentParser) -> None:
    """`--set KEY=VALUE`, as for `mora train`; the result is in `changes`."""
    parser.add_argument(
        "--set", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="change the configuration"
    )


def publish(figures: Mapping[str, Any], file: Path | None) -> None:
    """Print the figures as JSON, and write them to the file of `--json`, if any."""
    print(json.dumps(figures, indent=1))
    save(figures, file)


def save(figures: Mapping[str, Any], file: Path | None) -> None:
    """Write the figures as JSON to the file of `--json`, if any; for benchmarks that print a table instead."""
    if file is not None:
        file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
