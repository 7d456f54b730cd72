"""The paper's tables 1, 2 and 5: our rows next to the paper's, with the number of videos and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mora_launch.evaluation.output.paper_figures import TABLES, VARIANTS, Column, PaperTable

_ABSENT = "-"
_ALWAYS = (
    "The paper does not say which videos, how many, at which length and frame rate, and in which of VBench's modes it "
    "measured. Ours are measured as a whole (short mode).",
    "Intervals are normal 95 % intervals over videos, n their number. The paper gives neither.",
)


@dataclass(frozen=True)
class Cell:
    """One of our values: `half_width` is half of its 95 % interval, `number` how many videos it is of."""

    value: float
    half_width: float | None = None
    number: int | None = None

    def __str__(self) -> str:
        text = f"{self.value:.3f}"
        if self.half_width is not None:
            text += f" ± {self.half_width:.3f}"
        return text if self.number is None else f"{text} (n {self.number})"


@dataclass(frozen=True)
class OwnRow:
    """Our values of one model, from a summary."""

    name: str
    task: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class FilledTable:
    """A table with the paper's rows, as text, and ours."""

    title: str
    columns: tuple[str, ...]
    paper: list[tuple[str, list[str]]]
    own: list[tuple[str, list[str]]] = field(default_factory=list)
    note: str = ""


def own_rows(about: Mapping[str, Any]) -> list[OwnRow]:
    """Return the rows that a summary gives: one, or of a run its first and its last step."""
    task, name = about["task"], about["name"]
    variant = VARIANTS.get(about["modulation"])
    label = f"{name}, {variant}" if variant else name
    groups = list(about["groups"])
    if not groups:
        return [OwnRow(label, task, _cells(about["dimensions"], about["totals"], about["shapes"]))]
    return [
        OwnRow(
            f"{label}, {group}", task,
            _cells(about["groups"][group]["dimensions"], about["groups"][group]["totals"], about["shapes"]),
        )
        for group in dict.fromkeys((groups[0], groups[-1]))
    ]  # fmt: skip


def filled_tables(rows: Sequence[OwnRow]) -> list[FilledTable]:
    """Return every table of the paper with our rows of its task; a task without rows of ours has the paper's alone."""
    return [_filled(table, [row for row in rows if row.task == table.task]) for table in TABLES]


def notes_on(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what a reader of the tables has to know."""
    made = sorted({name for about in summaries for name in about["made"]})
    found = list(_ALWAYS)
    if made:
        found.insert(
            0,
            f"The weights of {', '.join(made)} are made, not published: values of such metrics show that everything "
            "runs, repeats and adds up. They say nothing about quality and cannot be compared with the paper's.",
        )
    if any(about["prompts"] == "custom" for about in summaries):
        found.append(
            "Where the prompts are not VBench's, every dimension is the mean over all videos instead of those of its "
            "own prompts."
        )
    found += dict.fromkeys(note for about in summaries for note in about["notes"])
    return found


def markdown(tables: Sequence[FilledTable], notes: Sequence[str]) -> str:
    """Return the tables as Markdown."""
    lines = ["# The paper's tables", ""]
    for table in tables:
        lines += [f"## {table.title}", "", _md_row(["model", *table.columns])]
        lines.append(_md_row(["---"] * (len(table.columns) + 1)))
        lines += [_md_row([f"{name} (paper)", *cells]) for name, cells in table.paper]
        lines += [_md_row([f"**{name}**", *cells]) for name, cells in table.own]
        lines += ["", table.note, ""] if table.note else [""]
    return "\n".join([*lines, "## What the figures say", "", *(f"- {note}" for note in notes)]) + "\n"


def _md_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _filled(table: PaperTable, rows: Sequence[OwnRow]) -> FilledTable:
    return FilledTable(
        table.title,
        tuple(column.title for column in table.columns),
        [(name, [_paper_text(column, value) for column, value in zip(table.columns, values, strict=True)])
         for name, values in table.rows],
        [(row.name, [_own_text(row.cells.get(column.key)) for column in table.columns]) for row in rows],
        table.note,
    )  # fmt: skip


def _paper_text(column: Column, value: float | None) -> str:
    if value is None:
        return _ABSENT
    return f"{value:.{_num_digits(column)}f}"


def _num_digits(column: Column) -> int:
    return {"video_quality": 3, "length_s": 0}.get(column.key, 2)


def _own_text(cell: Cell | None) -> str:
    return _ABSENT if cell is None else str(cell)


def _cells(dimensions: Mapping[str, Any], totals: Mapping[str, float], shapes: Sequence[Any]) -> dict[str, Cell]:
    found = {
        name: Cell(each["overall"], each["half_width_95"], each["num_videos"])
        for name, each in dimensions.items()
        if each["overall"] is not None
    }
    found.update({name: Cell(value) for name, value in totals.items()})
    if shapes and shapes[0]["fps"]:
        found["length_s"] = Cell(shapes[0]["num_frames"] / shapes[0]["fps"])  # of most videos
    return found
