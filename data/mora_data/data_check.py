"""`mora data check`: reads a data set as training would, tells what is wrong, and draws what Mora sees."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from mora_runtime.errors import DatasetError

from mora_data.contact_sheet import contact_sheet, evenly_spread
from mora_data.dataset import found_samples, told_fault
from mora_data.faults import Tell
from mora_data.reading.fitting import Clip
from mora_data.sample import Sample
from mora_data.settings import ClipShape, DataSettings

_MAX_NUM_DRAWN = 100  # samples of the sheet, a row each
_NUM_COLUMNS = 6
_MAX_LABEL_LENGTH = 80


def check_data(data: DataSettings, shape: ClipShape, sheet: Path | None, *, tell: Tell) -> bool:
    """Decode every clip once and tell every fault. Returns whether all samples can be used.

    Args:
        sheet: picture to draw, one row for each clip; None draws none.

    Raises:
        DatasetError: there is no such data, or no sample in it.
    """
    with tempfile.TemporaryDirectory(prefix="mora-data-") as folder:
        samples, faults = found_samples(data, shape, Path(folder))
        num_drawn = 0 if sheet is None else _MAX_NUM_DRAWN
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(lambda item: _seen(item[1], shape, keeps=item[0] < num_drawn), enumerate(samples)))
    faults += [each for each in found if isinstance(each, str)]
    for fault in faults:
        tell(fault)
    num_good = len(samples) - sum(isinstance(each, str) for each in found)
    tell(_summary(num_good, len(faults), shape))
    rows = [(_label(sample), each) for sample, each in zip(samples, found, strict=True) if isinstance(each, np.ndarray)]
    if sheet is not None and rows:
        contact_sheet(rows, columns=_NUM_COLUMNS).save(sheet, "PNG")
        tell(f"{sheet}: what Mora reads" + (f" of the first {num_drawn} samples" if len(samples) > num_drawn else ""))
    return not faults


def _seen(sample: Sample, shape: ClipShape, *, keeps: bool) -> str | Clip | None:
    """Decode a sample once: what is wrong with it, or the frames to draw, or nothing."""
    try:
        clip = sample.clip(shape)
    except DatasetError as error:
        return told_fault(sample, error)
    # as `contact_sheet` chooses them, copied so that the clip itself is freed
    return clip[evenly_spread(len(clip), _NUM_COLUMNS)] if keeps else None


def _summary(num_good: int, num_bad: int, shape: ClipShape) -> str:
    frames = f"{shape.num_frames} frames of {shape.width}x{shape.height}"
    return f"{num_good} samples can be used ({frames})" + (f", {num_bad} cannot" if num_bad else "")


def _label(sample: Sample) -> str:
    return f"{sample.video.name}: {sample.prompt}"[:_MAX_LABEL_LENGTH]
