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
    text = json.dumps(figures, indent=1)
    print(text)
    if file is not None:
        file.write_text(text + "\n", encoding="utf-8")
