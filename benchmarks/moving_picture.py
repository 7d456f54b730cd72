"""Makes the moving picture of the README by a fixed rule: what the chain generates before and after joint training.

    ./mora train configs/shapes.yaml --run RUN
    .venvs/control/bin/python -m benchmarks.moving_picture RUN docs/shapes.webp

The rule: configs/shapes.yaml as it is; every fourth held-out prompt (`benchmarks.learn.data.HELD_OUT`, which are in
no training data), so the first of each colour; seed 0; every other setting is from the configuration. The upper row
comes from the models before training, the lower row from the last committed checkpoint of RUN. All four are shown,
good or bad. `./mora generate text-to-video --no-enhance --seed 0` makes the same clips one by one.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mora_data.reading.fitting import Clip
from mora_launch.chat.prompt_agent import prompt_agent
from mora_launch.config.train_config import TrainConfig, load_config
from mora_launch.environments.venvs import ROOT
from mora_launch.serving.running_servers import RunningServers
from mora_launch.tasks.agents import Agents
from mora_launch.tasks.procedures import run_task
from mora_launch.tasks.request import TaskRequest
from mora_launch.tasks.stages import Unreviewed
from mora_runtime import RunDirectory
from mora_trainer.terminal import Console
from PIL import Image, ImageDraw, ImageFont

from benchmarks.learn.data import HELD_OUT

CONFIG = ROOT / "configs" / "shapes.yaml"
SEED = 0
_SCALE = 6
_GAP, _LABEL_HEIGHT, _SIDE_WIDTH = 6, 24, 64
_BACKGROUND, _TEXT = (255, 255, 255), (40, 40, 40)
_LAST_FRAME_MS = 1500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="directory of a run of configs/shapes.yaml")
    parser.add_argument("output", type=Path, help="animated WebP")
    parser.add_argument(
        "--set", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="as in training"
    )
    arguments = parser.parse_args()
    prompts = [shape.prompt for shape in HELD_OUT[::4]]
    before = load_config(CONFIG, arguments.changes)
    after = load_config(CONFIG, [*arguments.changes, f"serving.checkpoint={arguments.run.absolute()}"])
    rows = [("before", clips(before, prompts)), ("after", clips(after, prompts))]
    write(arguments.output, frames(prompts, rows), before.clip.fps)


def clips(config: TrainConfig, prompts: Sequence[str]) -> list[Clip]:
    """What text-to-video makes from each unchanged prompt, uint8 (frames, height, width, 3)."""
    console = Console(stderr=True)
    with (
        tempfile.TemporaryDirectory(prefix="mora-picture-") as folder,
        RunDirectory.create(Path(folder) / "run", lock=True) as directory,
        RunningServers(config, directory, console) as servers,
    ):
        deadline_s = config.serving.call_deadline_s
        agents = Agents(servers.pool, prompt_agent(config.serving.prompts), sampling={}, deadline_s=deadline_s)
        return [
            run_task(
                TaskRequest("text_to_video", prompt, SEED, config.clip.fps, enhance=False), agents, Unreviewed(SEED)
            )
            for prompt in prompts
        ]


def frames(prompts: Sequence[str], rows: Sequence[tuple[str, Sequence[Clip]]]) -> list[Image.Image]:
    """One picture per frame, with a column per prompt and a row per state of the models."""
    height, width = (side * _SCALE for side in rows[0][1][0].shape[1:3])
    size = (
        _SIDE_WIDTH + len(prompts) * (width + _GAP),
        _LABEL_HEIGHT + len(rows) * (height + _GAP),
    )
    return [_frame(number, prompts, rows, size, (width, height)) for number in range(len(rows[0][1][0]))]


def _frame(
    number: int, prompts: Sequence[str], rows: Sequence[tuple[str, Sequence[Clip]]],
    size: tuple[int, int], cell: tuple[int, int],
) -> Image.Image:  # fmt: skip
    picture = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(12)
    for row, (label, made) in enumerate(rows):
        top = _LABEL_HEIGHT + row * (cell[1] + _GAP)
        draw.text((_GAP, top + cell[1] // 2), label, fill=_TEXT, font=font, anchor="lm")
        for column, clip in enumerate(made):
            pixels = Image.fromarray(np.ascontiguousarray(clip[number])).resize(cell, Image.Resampling.NEAREST)
            picture.paste(pixels, (_SIDE_WIDTH + column * (cell[0] + _GAP), top))
    for column, prompt in enumerate(prompts):
        draw.text((_SIDE_WIDTH + column * (cell[0] + _GAP), _GAP), prompt, fill=_TEXT, font=font)
    return picture


def write(path: Path, pictures: Sequence[Image.Image], fps: float) -> None:
    """Write an endless animation at the clips' frame rate that pauses on the last frame."""
    durations = [round(1000 / fps)] * (len(pictures) - 1) + [_LAST_FRAME_MS]
    pictures[0].save(
        path, save_all=True, append_images=pictures[1:], duration=durations, loop=0, lossless=True, quality=100
    )


if __name__ == "__main__":
    main()
