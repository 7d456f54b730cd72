"""Prompts from a grammar: the offline default, documented in docs/rounds.md.

prompt = [style] subject action place [camera]. Every list is written here; a seed chooses. No network, no model.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

SUBJECTS = (
    "a red fox", "an old fisherman", "a child with a yellow umbrella", "a white sailing boat", "a paper kite",
    "two dancers in blue", "a steam locomotive", "a black cat", "a flock of starlings", "a glass marble",
    "a potter at the wheel", "a humpback whale", "a street musician with a violin", "a small robot",
    "a hot-air balloon", "a grey horse", "a cyclist in a green jacket", "a lighthouse", "a swarm of fireflies",
    "a baker with a tray of bread", "an astronaut", "a sea turtle", "a vintage car", "a waterfall",
)  # fmt: skip
# Actions that any of the subjects could be seen in, so that every combination can be drawn.
ACTIONS = (
    "moves slowly from left to right", "turns around once", "rises into the air", "comes closer", "drifts away",
    "stands still while leaves blow past", "is reflected in moving water", "casts a long shadow that shortens",
    "disappears behind a wall and comes back", "is slowly covered by falling snow", "glows brighter and brighter",
    "sways in the wind", "passes in front of the setting sun", "is followed by a white butterfly",
)  # fmt: skip
PLACES = (
    "on a pebble beach at dawn", "in a narrow street of an old town", "in a field of sunflowers",
    "under a stone bridge", "in a snowy birch forest", "on a rooftop above a city at night",
    "in a greenhouse full of ferns", "beside a mountain lake", "in a sunlit workshop", "in a desert of red sand",
    "on a pier in the fog", "in a market hall at noon", "in a tide pool", "in an empty theatre",
)  # fmt: skip
STYLES = (
    "", "watercolour painting:", "black and white film:", "claymation:", "documentary footage:", "ink drawing:",
    "macro photograph in motion:", "pastel animation:", "nineteen-seventies home movie:", "studio shot:",
)  # fmt: skip
CAMERAS = (
    "", "the camera stands still", "the camera pans slowly to the right", "the camera tracks alongside",
    "the camera rises from the ground", "the camera zooms in gently", "the camera circles the scene",
    "a low-angle shot", "seen from high above",
)  # fmt: skip


def grammar_prompts(seed: str) -> Iterator[str]:
    """Prompts without end; the same seed gives the same ones in the same order. May repeat: callers drop doubles."""
    draw = random.Random(seed)
    while True:
        style, camera = draw.choice(STYLES), draw.choice(CAMERAS)
        sentence = f"{draw.choice(SUBJECTS)} {draw.choice(ACTIONS)} {draw.choice(PLACES)}"
        yield " ".join(filter(None, (style, f"{sentence},{' ' + camera if camera else ''}".rstrip(","))))
