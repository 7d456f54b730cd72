"""Where a benchmark's figures go: to the terminal, and to a file for who measures with it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """`--json FILE`."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")


def publish(figures: Mapping[str, Any], file: Path | None) -> None:
    """Print the figures as JSON, and write them where a file was named."""
    print(json.dumps(figures, indent=1))
    save(figures, file)


def save(figures: Mapping[str, Any], file: Path | None) -> None:
    """Write the figures as JSON where a file was named; for benchmarks that show people something else."""
    if file is not None:
        file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
