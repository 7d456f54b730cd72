"""Metrics of a run: `metrics.jsonl`, one JSON object per step, and the same values for TensorBoard. Rank 0 only.

A separate thread writes the files, so that a slow disk does not delay the next step.
"""

from __future__ import annotations

import json
import math
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mora_runtime.errors import StorageError
from mora_runtime.files.durable_files import replace_text
from mora_runtime.files.foreign_file import read_foreign
from mora_runtime.limits import FILES_DEADLINE_S
from mora_runtime.trace import tracing
from torch.utils.tensorboard import SummaryWriter

from mora_trainer.step import LearningRates, StepReport

_MAX_NBYTES = 1 << 30  # a million steps


class MetricsLog:
    """Appends steps to `<run>/metrics.jsonl` and `<run>/tensorboard/`; first removes those from `first_step` on."""

    def __init__(self, run: Path, *, first_step: int) -> None:
        self._path = run / "metrics.jsonl"
        _keep_steps_before(self._path, first_step)
        self._file = self._path.open("a", encoding="utf-8")
        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=first_step)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._last: Future[None] | None = None

    def write(self, report: StepReport, rates: LearningRates, step_s: float) -> None:
        """Record one step; non-finite numbers become null in JSON.

        Raises:
            OSError: an earlier step could not be written.
        """
        if self._last is not None and self._last.done():
            self._last.result()
        self._last = self._thread.submit(self._write, as_record(report, rates, step_s))

    def _write(self, values: dict[str, Any]) -> None:
        with tracing.span("write metrics", "io"):
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()
            for name, value in _flat(values):
                if name != "step" and value is not None:
                    self._writer.add_scalar(name, value, values["step"])

    def close(self) -> None:
        """Write the remaining steps and close both files.

        Raises:
            OSError: a step could not be written (TimeoutError: not in time).
        """
        self._thread.shutdown(wait=False)
        if self._last is not None:
            self._last.result(FILES_DEADLINE_S)
        self._file.close()
        self._writer.close()


def as_record(report: StepReport, rates: LearningRates, step_s: float) -> dict[str, Any]:
    """Build one line of metrics.jsonl."""
    record: dict[str, Any] = {
        "step": report.step,
        "loss": _finite(report.loss),
        "skipped": report.skipped,
        "z_norm": report.norms,
        "alpha": report.alphas,
        "gradient_norm": {
            "total": _finite(report.gradient_norm),
            **{name: _finite(norm) for name, norm in report.gradient_norms.items()},
            **{f"{name}_output": _finite(norm) for name, norm in report.output_gradient_norms.items()},
        },
        "clip": report.clip,
        "learning_rate": rates.parameters,
        "modulation_learning_rate": rates.embeddings,
        "step_s": round(step_s, 6),
        "breakdown_s": {name: round(spent_s, 6) for name, spent_s in report.breakdown_s.items()},
    }
    if len(report.losses) > 1:
        record["losses"] = {name: _finite(loss) for name, loss in report.losses.items()}
    return record


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, float | None]]:
    pairs: list[tuple[str, float | None]] = []
    for name, value in values.items():
        pairs += _flat(value, f"{prefix}{name}/") if isinstance(value, dict) else [(prefix + name, value)]
    return pairs


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read all complete lines of a metrics file; a line truncated by a crash is skipped.

    Raises:
        StorageError: it is too large, or was not written by Mora.
    """
    try:
        lines = read_foreign(path, _MAX_NBYTES).decode().split("\n")
        return [json.loads(line) for line in lines[:-1]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise StorageError(
            f"{path}: cannot be read ({error}); move it away, then the run continues without it"
        ) from None


def _keep_steps_before(path: Path, first_step: int) -> None:
    kept = [line for line in read_metrics(path) if line["step"] < first_step]
    replace_text(path, "".join(json.dumps(line) + "\n" for line in kept))
