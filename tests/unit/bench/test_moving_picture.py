"""The moving picture of the README shows every clip at its label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mora_data.moving_shapes import COLOURS
from PIL import Image, ImageSequence

from benchmarks.learn.data import HELD_OUT
from benchmarks.moving_picture import frames, write

ROOT = Path(__file__).resolve().parents[3]
MAX_NBYTES = 1_000_000


def lit_last(colour: tuple[int, int, int]) -> np.ndarray:
    """Three different frames, because an animation drops repeated ones; the last has a single colour."""
    return np.stack([np.full((8, 8, 3), value, dtype=np.uint8) for value in ((50, 50, 50), (99, 99, 99), colour)])


def test_rows_are_states_and_columns_are_prompts(tmp_path: Path) -> None:
    rows = [
        ("before", [lit_last((255, 0, 0)), lit_last((0, 255, 0))]),
        ("after", [lit_last((0, 0, 255)), lit_last((9, 9, 9))]),
    ]
    write(tmp_path / "made.webp", frames(["one", "two"], rows), fps=4)
    with Image.open(tmp_path / "made.webp") as made:
        shown = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(made)]
    assert len(shown) == 3
    seen = {tuple(pixel) for pixel in shown[2].reshape(-1, 3).tolist()}
    assert {(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)} <= seen
    columns_of_green = np.flatnonzero((shown[2] == (0, 255, 0)).all(axis=-1).any(axis=0))
    columns_of_red = np.flatnonzero((shown[2] == (255, 0, 0)).all(axis=-1).any(axis=0))
    rows_of_blue = np.flatnonzero((shown[2] == (0, 0, 255)).all(axis=-1).any(axis=1))
    rows_of_red = np.flatnonzero((shown[2] == (255, 0, 0)).all(axis=-1).any(axis=1))
    assert columns_of_red.max() < columns_of_green.min()
    assert rows_of_red.max() < rows_of_blue.min()


def test_the_rule_takes_one_held_out_prompt_of_each_colour() -> None:
    assert [shape.colour for shape in HELD_OUT[::4]] == list(COLOURS)


def test_the_picture_of_the_readme_moves_and_is_small() -> None:
    path = ROOT / "docs" / "shapes.webp"
    assert path.stat().st_size < MAX_NBYTES
    with Image.open(path) as picture:
        assert getattr(picture, "n_frames", 1) == 5  # as many as a clip of configs/shapes.yaml has
