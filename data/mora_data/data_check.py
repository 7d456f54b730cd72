"""`mora data check`: reads a data set as training would, tells what is wrong, and draws what Mora sees."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mora_data.clips import Clip, contact_sheet
from mora_data.dataset import fault_of, found_samples
from mora_data.faults import Tell
from mora_data.sample import Sample
from mora_data.settings import ClipShape, DataSettings

_MAX_NUM_DRAWN = 100  # rows of the sheet
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
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(lambda sample: fault_of(sample, shape), samples))
        good = [sample for sample, fault in zip(samples, found, strict=True) if fault is None]
        faults += [fault for fault in found if fault is not None]
        for fault in faults:
            tell(fault)
        tell(_summary(len(good), len(faults), shape))
        if sheet is not None and good:
            contact_sheet(_rows(good[:_MAX_NUM_DRAWN], shape)).save(sheet, "PNG")
            left = len(good) - _MAX_NUM_DRAWN
            tell(f"{sheet}: what Mora reads" + (f" of the first {_MAX_NUM_DRAWN} clips" if left > 0 else ""))
    return not faults


def _summary(num_good: int, num_bad: int, shape: ClipShape) -> str:
    frames = f"{shape.num_frames} frames of {shape.width}x{shape.height}"
    return f"{num_good} samples can be used ({frames})" + (f", {num_bad} cannot" if num_bad else "")


def _rows(samples: Sequence[Sample], shape: ClipShape) -> list[tuple[str, Clip]]:
    with ThreadPoolExecutor() as pool:
        clips = list(pool.map(lambda sample: sample.clip(shape), samples))
    labels = [f"{sample.video.name}: {sample.prompt}"[:_MAX_LABEL_LENGTH] for sample in samples]
    return list(zip(labels, clips, strict=True))
