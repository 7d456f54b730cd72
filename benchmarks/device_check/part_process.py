"""The process of one part: `python -m benchmarks.device_check.part_process REQUEST FIGURES OUTCOME`, three files.

It writes figures as they are found, and at its end the outcome.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from pathlib import Path

from benchmarks.device_check.figures import Figures
from benchmarks.device_check.outcome import CheckFailed, Outcome, Skipped
from benchmarks.device_check.request import Request


def main() -> None:
    """Run the part that the request names."""
    request_file, figures_file, outcome_file = map(Path, sys.argv[1:])
    outcome = outcome_of(Request.read(request_file), Figures(figures_file))
    outcome_file.write_text(json.dumps({"status": outcome.status, "reason": outcome.reason}), encoding="utf-8")


def outcome_of(request: Request, figures: Figures) -> Outcome:
    """Run a part; whatever it raises becomes its outcome."""
    try:
        importlib.import_module(f"benchmarks.device_check.parts.{request.part}").run(request, figures)
    except Skipped as reason:
        return Outcome("skipped", reason=str(reason))
    except CheckFailed as reason:
        return Outcome("failed", reason=str(reason))
    except Exception as error:
        traceback.print_exc()  # into the log of the part
        return Outcome("failed", reason=f"{type(error).__name__}: {error}")
    return Outcome("ok")


if __name__ == "__main__":
    main()
