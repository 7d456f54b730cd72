"""Curves of metrics of samples in TensorBoard, next to those of training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mora_runtime.errors import StorageError

_SUFFIX = ".samples"  # of the file, so that the next writing replaces it: samples of early steps are measured late
_TAG = "metrics"


def write_curves(run: Path, curves: Mapping[int, Mapping[str, float]]) -> None:
    """Replace all curves of samples of a run.

    Args:
        curves: values by number of steps done, and name.

    Raises:
        StorageError: they cannot be written.
    """
    from torch.utils.tensorboard import SummaryWriter

    folder = run / "tensorboard"
    try:
        for path in folder.glob(f"events.out.tfevents.*{_SUFFIX}"):
            path.unlink()
        with SummaryWriter(str(folder), filename_suffix=_SUFFIX) as writer:
            for step, values in sorted(curves.items()):
                for name, value in values.items():
                    writer.add_scalar(f"{_TAG}/{name}", value, step)
    except OSError as error:
        raise StorageError(
            f"{error.filename or folder}: curves of samples cannot be written: {error.strerror}; free disk space and "
            "resume the run"
        ) from None
