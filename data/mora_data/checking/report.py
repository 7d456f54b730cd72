"""Tells what a check of a data set found: lines for the terminal, JSON, and a contact sheet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from mora_runtime.files.durable_files import replace_text

from mora_data.checking.data_check import MAX_NUM_DRAWN, NUM_COLUMNS, CheckedData
from mora_data.checking.found_sample import FoundSample
from mora_data.contact_sheet import contact_sheet
from mora_data.settings import ClipShape

_MAX_NUM_LINES = 100
_MAX_LABEL_LENGTH = 80


def report_lines(found: CheckedData, shape: ClipShape) -> Iterator[str]:
    """Yield a line for each sample, the first hundred, and for each fault, and a last line that counts them."""
    for sample in found.samples[:_MAX_NUM_LINES]:
        yield _line(sample)
    if len(found.samples) > _MAX_NUM_LINES:
        yield f"and {len(found.samples) - _MAX_NUM_LINES} more samples"
    for fault in found.faults:
        yield f"{fault.line}  {fault}"
    bad = f", {len(found.faults)} cannot" if found.faults else ""
    if found.samples and not any(sample.fps for sample in found.samples):
        yield "1 picture can be read"
        return
    count = "1 sample" if len(found.samples) == 1 else f"{len(found.samples)} samples"
    yield f"{count} can be used ({shape.num_frames} frames of {shape.width}x{shape.height}){bad}"


def write_json(found: CheckedData, file: Path) -> None:
    """Write `samples` and `faults`."""
    faults = [{"line": each.line, "video": each.video, "fault": each.text} for each in found.faults]
    content = {"samples": [asdict(each) for each in found.samples], "faults": faults}
    replace_text(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def draw_sheet(found: CheckedData, file: Path) -> str:
    """Draw a row for each sample, the first hundred; return a line about it, or nothing if there is nothing to draw."""
    if not found.drawn:
        return ""
    rows = [(label[:_MAX_LABEL_LENGTH], frames) for label, frames in found.drawn]
    contact_sheet(rows, columns=NUM_COLUMNS).save(file, "PNG")
    return f"{file}: what Mora reads" + (f" of the first {MAX_NUM_DRAWN}" if len(rows) == MAX_NUM_DRAWN else "")


def _line(sample: FoundSample) -> str:
    what = f"{sample.width}x{sample.height}"
    if sample.fps:
        what += f", {sample.fps:.4g} fps, {sample.duration_s:.2f} s"
    prompts = " | ".join(sample.prompts)
    return f"{sample.line}  {sample.video}  {what}" + (f"  {prompts[:_MAX_LABEL_LENGTH]}" if prompts else "")
