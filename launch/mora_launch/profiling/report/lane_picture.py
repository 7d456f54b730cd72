"""A step as a picture: one lane a role, blocks of work, the bubble hatched, the critical path as a line. Inline SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from mora_launch.profiling.bubble import Idle, bubble
from mora_launch.profiling.critical_path import MESSAGE, PathPiece, critical_path
from mora_launch.profiling.lane import Lane, LanePiece
from mora_launch.profiling.message import Message
from mora_launch.profiling.step_window import StepWindow

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


def lane_picture(lanes: Sequence[Lane], messages: Sequence[Message], step: StepWindow) -> str:
    """One step of one replica."""
    return _Picture([lane for lane in lanes if lane.replica == step.replica], messages, step).svg()


class _Picture:
    def __init__(self, lanes: Sequence[Lane], messages: Sequence[Message], step: StepWindow) -> None:
        self._lanes = lanes
        self._messages = messages
        self._step = step
        self._scale = (_WIDTH - _LEFT - 12) / (step.end_ns - step.start_ns)
        self._row = {lane.role: number for number, lane in enumerate(lanes)}

    def svg(self) -> str:
        height = _TOP + _LANE_HEIGHT * len(self._lanes) + 8
        parts = [
            f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img" aria-label="lanes of a step">',
            *self._axis(height),
        ]
        for lane in self._lanes:
            parts += self._lane(lane)
        parts += self._bubble()
        parts += self._path(critical_path(self._lanes, self._messages, self._step))
        return "\n".join([*parts, "</svg>"])

    def _x(self, at_ns: float) -> float:
        return _LEFT + (at_ns - self._step.start_ns) * self._scale

    def _y(self, role: str) -> float:
        return _TOP + _LANE_HEIGHT * self._row[role] + 8

    def _axis(self, height: int) -> Iterator[str]:
        tick_ns = _round_step((self._step.end_ns - self._step.start_ns) / _NUM_TICKS)
        for at_ns in range(0, self._step.end_ns - self._step.start_ns, tick_ns):
            x = self._x(self._step.start_ns + at_ns)
            yield f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 8}" y2="{height - 8}"/>'
            yield _text("axis", x, _TOP - 14, f"{at_ns / 1e6:g} ms")

    def _lane(self, lane: Lane) -> Iterator[str]:
        y = self._y(lane.role)
        width = self._x(self._step.end_ns) - _LEFT
        yield f'<text class="role" x="8" y="{y + _BLOCK_HEIGHT / 2 + 5}">{escape(lane.role)}</text>'
        yield _rect(_LEFT, y, width, COLOURS["wait"], f"{lane.role} waits")
        numbers: dict[str, set[int]] = {}  # starts of the spans of a name so far
        for piece in lane.within(self._step.start_ns, self._step.end_ns):
            if piece.span.category != "wait":
                seen = numbers.setdefault(piece.span.name, set())
                seen.add(piece.span.start_ns)
                yield from self._block(piece, y, len(seen))

    def _block(self, piece: LanePiece, y: float, number: int) -> Iterator[str]:
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

    def _bubble(self) -> Iterator[str]:
        found = bubble(self._lanes, self._step).idle
        widest = max(found, key=lambda idle: idle.spent_ns, default=None)
        for idle in found:
            x, width = self._x(idle.start_ns), idle.spent_ns * self._scale
            if width < _THINNEST:
                continue
            told = f"bubble: {idle.role} has nothing to do for {_ms(idle.spent_ns)} ({idle.kind})"
            yield _rect(x, self._y(idle.role), width, "url(#hatch)", told)
            yield from self._bubble_label(idle, x, width, is_widest=idle is widest)

    def _bubble_label(self, idle: Idle, x: float, width: float, *, is_widest: bool) -> Iterator[str]:
        text = f"bubble: waits {_ms(idle.spent_ns)}" if is_widest else f"waits {_ms(idle.spent_ns)}"
        space = _LETTER_WIDTH * len(text) + 10
        if width > space:
            left, y = x + (width - space) / 2, self._y(idle.role)
            yield f'<rect class="plate" x="{left:.1f}" y="{y + 9}" width="{space:.1f}" height="18" rx="3"/>'
            yield _text("bubble", x + width / 2, y + 22, text)

    def _path(self, path: Sequence[PathPiece]) -> Iterator[str]:
        """Under the blocks while a role works; from lane to lane while a message is on its way."""
        below = _BLOCK_HEIGHT + 5
        for before, piece in zip([None, *path], path, strict=False):
            x1, x2 = self._x(piece.start_ns), self._x(piece.end_ns)
            y2 = self._y(piece.role) + below
            y1 = self._y(before.role) + below if piece.category == MESSAGE and before is not None else y2
            told = escape(_told(f"{piece.role}: {piece.name}", f"critical path, {piece.category}", piece.spent_ns))
            line = f'<line class="path" x1="{x1:.1f}" y1="{y1}" x2="{x2:.1f}" y2="{y2}">'
            yield f"{line}<title>{told}</title></line>"


def _round_step(least_ns: float) -> int:
    """The next of 1, 2, 5, 10, 20, ... ns."""
    power: float = 10 ** math.floor(math.log10(max(1.0, least_ns)))
    return round(next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least_ns))


def _rect(x: float, y: float, width: float, fill: str, told: str) -> str:
    return (
        f'<rect x="{x:.2f}" y="{y}" width="{width:.2f}" height="{_BLOCK_HEIGHT}" fill="{fill}">'
        f"<title>{escape(told)}</title></rect>"
    )


def _text(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y}">{escape(text)}</text>'


def _told(name: str, category: str, spent_ns: int) -> str:
    return f"{name} ({category}) {_ms(spent_ns)}"


def _ms(spent_ns: int) -> str:
    return f"{spent_ns / 1e6:.0f} ms" if spent_ns >= 10_000_000 else f"{spent_ns / 1e6:.2f} ms"


def _short(name: str) -> str:
    """What stands on a block: `render` of image.render, `backward` of every backward."""
    return "backward" if name.endswith("backward") else name.rpartition(".")[2]
