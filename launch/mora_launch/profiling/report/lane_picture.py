"""A step as a picture: one lane a role, blocks of work, the bubble hatched, the critical path as a line. Inline SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup

from mora_launch.profiling.bubble import Idle, bubble
from mora_launch.profiling.critical_path import MESSAGE, PathPiece, critical_path
from mora_launch.profiling.lane import Lane, LanePiece
from mora_launch.profiling.message import Message
from mora_launch.profiling.step_window import StepWindow
from mora_launch.web.page_templates import page_templates

TEMPLATES = page_templates("mora_launch.profiling.report")

COLOURS = {
    "compute": "#3f7fbf",
    "backward": "#7a5fb5",
    "copy": "#e0a030",
    "protocol": "#8c9aa5",
    "io": "#5aa469",
    "wait": "#eef1f4",
    "bubble": "#e2574c",
    "path": "#111111",
}
_WIDTH = 1120
_LEFT = 118  # for the names of the lanes
_TOP = 34  # for the axis
_LANE_HEIGHT = 64
_BLOCK_HEIGHT = 36
_LETTER_WIDTH = 6.6
_NUM_TICKS = 8
_THINNEST = 0.15  # pixels of a block that is drawn at all


class _Shape(NamedTuple):
    """An element of the picture; `title` is shown where the mouse points at it."""

    tag: str
    attributes: dict[str, str | float]
    title: str = ""
    text: str = ""


def lane_picture(lanes: Sequence[Lane], messages: Sequence[Message], step: StepWindow) -> Markup:
    """One step of one replica, as an `<svg>` element."""
    return _Picture([lane for lane in lanes if lane.replica == step.replica], messages, step).svg()


class _Picture:
    def __init__(self, lanes: Sequence[Lane], messages: Sequence[Message], step: StepWindow) -> None:
        self._lanes = lanes
        self._messages = messages
        self._step = step
        self._scale = (_WIDTH - _LEFT - 12) / (step.end_ns - step.start_ns)
        self._row = {lane.role: number for number, lane in enumerate(lanes)}

    def svg(self) -> Markup:
        height = _TOP + _LANE_HEIGHT * len(self._lanes) + 8
        shapes = [*self._axis(height)]
        for lane in self._lanes:
            shapes += self._lane(lane)
        shapes += self._bubble()
        shapes += self._path(critical_path(self._lanes, self._messages, self._step))
        return Markup(TEMPLATES.get_template("lanes.svg").render(width=_WIDTH, height=height, shapes=shapes))

    def _x(self, at_ns: float) -> float:
        return _LEFT + (at_ns - self._step.start_ns) * self._scale

    def _y(self, role: str) -> float:
        return _TOP + _LANE_HEIGHT * self._row[role] + 8

    def _axis(self, height: int) -> Iterator[_Shape]:
        tick_ns = _round_step((self._step.end_ns - self._step.start_ns) / _NUM_TICKS)
        for at_ns in range(0, self._step.end_ns - self._step.start_ns, tick_ns):
            x = self._x(self._step.start_ns + at_ns)
            ends: dict[str, str | float] = {"x1": f"{x:.1f}", "x2": f"{x:.1f}", "y1": _TOP - 8, "y2": height - 8}
            yield _Shape("line", {"class": "tick", **ends})
            yield _text("axis", x, _TOP - 14, f"{at_ns / 1e6:g} ms")

    def _lane(self, lane: Lane) -> Iterator[_Shape]:
        y = self._y(lane.role)
        width = self._x(self._step.end_ns) - _LEFT
        yield _Shape("text", {"class": "role", "x": 8, "y": y + _BLOCK_HEIGHT / 2 + 5}, text=lane.role)
        yield _rect(_LEFT, y, width, COLOURS["wait"], f"{lane.role} waits")
        numbers: dict[str, set[int]] = {}  # starts of the spans of a name so far
        for piece in lane.within(self._step.start_ns, self._step.end_ns):
            if piece.span.category != "wait":
                seen = numbers.setdefault(piece.span.name, set())
                seen.add(piece.span.start_ns)
                yield from self._block(piece, y, len(seen))

    def _block(self, piece: LanePiece, y: float, number: int) -> Iterator[_Shape]:
        x, width = self._x(piece.start_ns), piece.spent_ns * self._scale
        if width < _THINNEST:
            return
        name, category = piece.span.name, piece.span.category
        is_backward = category == "compute" and name.endswith("backward")
        colour = COLOURS["backward" if is_backward else category]
        yield _rect(x, y, width, colour, _told(name, category, piece.spent_ns))
        if category == "compute":
            for label in (f"{_short(name)} {number}", str(number)):
                if width > _LETTER_WIDTH * len(label) + 2:
                    yield _text("block", x + width / 2, y + _BLOCK_HEIGHT / 2 + 4, label)
                    break

    def _bubble(self) -> Iterator[_Shape]:
        found = bubble(self._lanes, self._step).idle
        widest = max(found, key=lambda idle: idle.spent_ns, default=None)
        for idle in found:
            x, width = self._x(idle.start_ns), idle.spent_ns * self._scale
            if width < _THINNEST:
                continue
            told = f"bubble: {idle.role} has nothing to do for {_ms(idle.spent_ns)} ({idle.kind})"
            yield _rect(x, self._y(idle.role), width, "url(#hatch)", told)
            yield from self._bubble_label(idle, x, width, is_widest=idle is widest)

    def _bubble_label(self, idle: Idle, x: float, width: float, *, is_widest: bool) -> Iterator[_Shape]:
        text = f"bubble: waits {_ms(idle.spent_ns)}" if is_widest else f"waits {_ms(idle.spent_ns)}"
        space = _LETTER_WIDTH * len(text) + 10
        if width > space:
            left, y = x + (width - space) / 2, self._y(idle.role)
            size: dict[str, str | float] = {"width": f"{space:.1f}", "height": 18, "rx": 3}
            yield _Shape("rect", {"class": "plate", "x": f"{left:.1f}", "y": y + 9, **size})
            yield _text("bubble", x + width / 2, y + 22, text)

    def _path(self, path: Sequence[PathPiece]) -> Iterator[_Shape]:
        """Under the blocks while a role works; from lane to lane while a message is on its way."""
        below = _BLOCK_HEIGHT + 5
        for before, piece in zip([None, *path], path, strict=False):
            x1, x2 = self._x(piece.start_ns), self._x(piece.end_ns)
            y2 = self._y(piece.role) + below
            y1 = self._y(before.role) + below if piece.category == MESSAGE and before is not None else y2
            told = _told(f"{piece.role}: {piece.name}", f"critical path, {piece.category}", piece.spent_ns)
            ends: dict[str, str | float] = {"x1": f"{x1:.1f}", "y1": y1, "x2": f"{x2:.1f}", "y2": y2}
            yield _Shape("line", {"class": "path", **ends}, told)


def _round_step(least_ns: float) -> int:
    """The next of 1, 2, 5, 10, 20, ... ns."""
    power: float = 10 ** math.floor(math.log10(max(1.0, least_ns)))
    return round(next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least_ns))


def _rect(x: float, y: float, width: float, fill: str, told: str) -> _Shape:
    size: dict[str, str | float] = {"width": f"{width:.2f}", "height": _BLOCK_HEIGHT, "fill": fill}
    return _Shape("rect", {"x": f"{x:.2f}", "y": y, **size}, told)


def _text(kind: str, x: float, y: float, text: str) -> _Shape:
    return _Shape("text", {"class": kind, "x": f"{x:.1f}", "y": y}, text=text)


def _told(name: str, category: str, spent_ns: int) -> str:
    return f"{name} ({category}) {_ms(spent_ns)}"


def _ms(spent_ns: int) -> str:
    return f"{spent_ns / 1e6:.0f} ms" if spent_ns >= 10_000_000 else f"{spent_ns / 1e6:.2f} ms"


def _short(name: str) -> str:
    """The label of a block: the method of a call without its agent, or `backward`."""
    return "backward" if name.endswith("backward") else name.rpartition(".")[2]
