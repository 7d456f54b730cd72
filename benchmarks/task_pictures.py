"""Makes the contact sheet of the six tasks by a fixed rule: one row a task, its frames from left to right.

    .venvs/control/bin/python -m benchmarks.task_pictures configs/tiny-svd.yaml docs/tasks-svd.webp

The rule: the configuration as it is, seed 0, the prompts and given files of `CASES`; every other setting is from the
configuration. The files show held-out combinations of moving shapes, which are in no training data. Whatever comes out
is shown. `./mora generate TASK --no-enhance --seed 0` makes the same clips one by one.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mora_data.contact_sheet import contact_sheet
from mora_data.moving_shapes import MovingShape
from mora_data.reading.fitting import Clip
from mora_data.reading.timeline import Video
from mora_launch.chat.prompt_agent import prompt_agent
from mora_launch.config.train_config import TrainConfig, load_config
from mora_launch.serving.running_servers import RunningServers
from mora_launch.tasks.agents import Agents
from mora_launch.tasks.procedures import run_task
from mora_launch.tasks.request import TaskRequest, check_request
from mora_launch.tasks.stages import Unreviewed
from mora_runtime import RunDirectory
from mora_trainer.terminal import Console

from benchmarks.learn.data import HELD_OUT

SEED = 0
_COLUMNS, _CELL_HEIGHT = 13, 64


@dataclass(frozen=True)
class Case:
    """One row of the sheet.

    Args:
        picture: what the given picture shows: the first frame of this clip.
        videos: what the given videos show.
    """

    task: str
    prompt: str
    picture: MovingShape | None = None
    videos: tuple[MovingShape, ...] = ()

    def request(self, config: TrainConfig) -> TaskRequest:
        """The request, with its files drawn at the size of the configuration's clips."""
        shape = config.clip
        image = None if self.picture is None else self.picture.clip(shape)[0]
        videos = tuple(Video(shown.clip(shape), shape.fps) for shown in self.videos)
        strength = config.serving.edit_strength
        return TaskRequest(
            self.task, self.prompt, SEED, shape.fps, image, videos, strength=strength, enhance=False
        )  # fmt: skip

    @property
    def label(self) -> str:
        """The task, the prompt, and what the given frames show."""
        given = [
            f"given: {shown.prompt}" for shown in (*([] if self.picture is None else [self.picture]), *self.videos)
        ]
        return f"{self.task.replace('_', '-')}: {self.prompt}" + (f"  ({'; '.join(given)})" if given else "")


_RED, _GREEN, _BLUE, _YELLOW = HELD_OUT[::4]
CASES = (
    Case("text_to_video", _RED.prompt),
    Case("image_to_video", _GREEN.prompt, picture=_GREEN),
    Case("extend", _BLUE.prompt, videos=(_BLUE,)),
    Case("edit", _YELLOW.prompt, videos=(_RED,)),
    Case("connect", _YELLOW.prompt, videos=(_GREEN, _YELLOW)),
    Case("simulate", _BLUE.prompt),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="a configuration whose models draw shapes")
    parser.add_argument("output", type=Path, help="WebP or PNG")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    rows = list(clips(load_config(arguments.config, arguments.changes)))
    sheet = contact_sheet(rows, columns=_COLUMNS, cell_height=_CELL_HEIGHT)
    sheet.save(arguments.output, **({"lossless": True} if arguments.output.suffix == ".webp" else {}))


def clips(config: TrainConfig) -> Iterator[tuple[str, Clip]]:
    """Label and frames of every case."""
    with (
        tempfile.TemporaryDirectory(prefix="mora-tasks-") as folder,
        RunDirectory.create(Path(folder) / "run", lock=True) as directory,
        RunningServers(config, directory, Console(stderr=True)) as servers,
    ):
        deadline_s = config.serving.call_deadline_s
        agents = Agents(servers.pool, prompt_agent(config.serving.prompts), sampling={}, deadline_s=deadline_s)
        for case in CASES:
            request = case.request(config)
            check_request(request, servers.pool, config.serving)
            yield case.label, run_task(request, agents, Unreviewed(SEED))


if __name__ == "__main__":
    main()
