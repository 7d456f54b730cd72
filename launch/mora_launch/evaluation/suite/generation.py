"""Makes the videos of VBench's suite with a configuration: `PROMPT-INDEX.mp4`, each with a seed of its own.

    videos/model.json      what makes the videos; another model is refused in the same folder
    videos/made.jsonl      a line for each video: file, prompt, index, seed, hash of the file
    videos/PROMPT-0.mp4

The line of a video is written after its file, so a start after a death makes what has no line.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mora_data.reading.fitting import fitted
from mora_runtime.errors import Cancelled, SettingsError, StorageError
from mora_runtime.files.durable_files import replace_text
from mora_runtime.files.foreign_file import read_foreign
from mora_runtime.files.foreign_json import parse_object
from mora_runtime.files.fresh_file import write_fresh
from mora_runtime.process.run_directory import RunDirectory
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mora_launch.chat.prompt_agent import prompt_agent
from mora_launch.config.train_config import TrainConfig
from mora_launch.evaluation.durable_lines import DurableLines
from mora_launch.evaluation.suite.vbench_prompts import SuitePrompt, prompts_for
from mora_launch.generation.interruption import interruptible
from mora_launch.limits import MAX_RECORD_NBYTES, MAX_SEED
from mora_launch.serving.running_servers import RunningServers
from mora_launch.serving.server_pool import ServerPool
from mora_launch.tasks.agents import Agents
from mora_launch.tasks.media import encode
from mora_launch.tasks.procedures import run_task
from mora_launch.tasks.request import TaskRequest
from mora_launch.tasks.stages import Unreviewed

MODEL_FILE = "model.json"
MADE_FILE = "made.jsonl"
_OF_AGENT = ("environment", "kind", "options", "weights", "adapters")
_OF_SERVING = ("checkpoint", "average", "prompts")
_NUM_PIPED_LINES = 20  # without a terminal


@dataclass(frozen=True)
class Order:
    """One video to make."""

    file: str
    prompt: str
    index: int
    seed: int


def suite_orders(dimensions: Collection[str], seed: int, limit: int | None) -> list[Order]:
    """Return the videos of the suite: of each prompt the first one, then the second ones, and so on.

    Prompts of different dimensions take turns, so that any number of the first videos has some for each dimension.

    Args:
        limit: at most so many; None = all.
    """
    prompts = list(_in_turns(prompts_for(dimensions)))
    most = max(prompt.num_videos(dimensions) for prompt in prompts)
    found = [
        Order(f"{prompt.text}-{index}.mp4", prompt.text, index, video_seed(seed, prompt.text, index))
        for index in range(most)
        for prompt in prompts
        if index < prompt.num_videos(dimensions)
    ]
    return found[:limit]


def video_seed(seed: int, prompt: str, index: int) -> int:
    """Return the seed of one video, a pure function."""
    digest = hashlib.sha256(f"{seed}/{prompt}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % (MAX_SEED + 1)


def _in_turns(prompts: Sequence[SuitePrompt]) -> Iterator[SuitePrompt]:
    """The first prompt of each group of dimensions, then the second ones, and so on."""
    numbers: dict[tuple[str, ...], int] = {}
    places = []
    for prompt in prompts:
        numbers[prompt.dimensions] = numbers.get(prompt.dimensions, -1) + 1
        places.append(numbers[prompt.dimensions])
    yield from (prompt for _, prompt in sorted(zip(places, prompts, strict=True), key=lambda pair: pair[0]))


def generate_suite(
    config: TrainConfig,
    orders: Sequence[Order],
    folder: Path,
    directory: RunDirectory,
    console: Console,
    *,
    size: tuple[int, int] | None = None,
) -> None:
    """Make the videos that are not there yet.

    Args:
        size: (height, width) of the videos; None = the model's.
        folder: of the videos.
        directory: run directory of the servers, locked.

    Raises:
        KeyboardInterrupt: the user asked to stop; what is made is kept.
        SettingsError: the folder has videos of another model or other seeds.
        MoraError: a server failed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be made: {error.strerror}; choose another -o") from None
    _keep_model(folder / MODEL_FILE, {**_model_of(config), "size": None if size is None else list(size)})
    with DurableLines(folder / MADE_FILE) as made:
        left = _left(orders, made.before, folder)
        console.print(f"{len(orders) - len(left)} of {len(orders)} videos are there", markup=False)
        if not left:
            return
        with RunningServers(config, directory, console) as servers, interruptible():
            _Generation(config, servers.pool, folder, made, console, size).run(left)


class _Generation:
    """Makes videos side by side, as many as fill the servers' batches."""

    def __init__(
        self, config: TrainConfig, pool: ServerPool, folder: Path, made: DurableLines, console: Console,
        size: tuple[int, int] | None,
    ) -> None:  # fmt: skip
        self._config = config
        self._pool = pool
        self._folder = folder
        self._made = made
        self._console = console
        self._size = size
        self._ending = threading.Event()
        self._writing = threading.Lock()

    def run(self, orders: Sequence[Order]) -> None:
        """Make them all; the first error ends it."""
        batches = self._config.serving.max_batch.values()
        num_threads = len(self._pool.workers) * max(batches, default=1)
        columns = (TextColumn("generating"), BarColumn(bar_width=16), MofNCompleteColumn(), TimeRemainingColumn())
        bar = Progress(*columns, TextColumn("left"), console=self._console, disable=not self._console.is_terminal)
        with bar, ThreadPoolExecutor(num_threads, thread_name_prefix="generates") as threads:
            task = bar.add_task("generating", total=len(orders))
            pending = [threads.submit(self._make, order) for order in orders]
            try:
                for number, _ in enumerate(_in_order_of_end(pending), start=1):
                    bar.update(task, completed=number)
                    if not self._console.is_terminal and self._is_told(number, len(orders)):
                        self._console.print(f"generated {number}/{len(orders)}", markup=False)
            finally:
                self._ending.set()
                for each in pending:
                    each.cancel()

    def _is_told(self, number: int, total: int) -> bool:
        return number * _NUM_PIPED_LINES // total > (number - 1) * _NUM_PIPED_LINES // total

    def _make(self, order: Order) -> None:
        if self._ending.is_set():
            raise Cancelled("the generation was stopped")
        settings = self._config.serving
        request = TaskRequest(
            "text_to_video", order.prompt, order.seed, self._config.clip.fps, enhance=settings.prompts.is_on
        )
        agents = Agents(
            self._pool, prompt_agent(settings.prompts), sampling=request.sampling(),
            deadline_s=settings.call_deadline_s, is_cancelled=self._ending.is_set,
        )  # fmt: skip
        clip = run_task(request, agents, Unreviewed(order.seed))
        if self._size is not None:
            clip = fitted(clip, *self._size)
        content = encode(clip, request.fps, "mp4", {"mora": asdict(order)})
        with self._writing:
            _write(self._folder / order.file, content)
            self._made.append({**asdict(order), "sha256": hashlib.sha256(content).hexdigest()})


def _in_order_of_end(pending: Sequence[Future[None]]) -> Iterator[None]:
    """Yield once for each future that has ended. Raises the first error."""
    left = set(pending)
    while left:
        done, left = wait(left, timeout=1.0, return_when=FIRST_EXCEPTION)  # a timeout, so that Ctrl-C is noticed
        for each in done:
            yield each.result()


def _write(path: Path, content: bytes) -> None:
    try:
        write_fresh(path, content, synced=True)
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written: {error.strerror}; free disk space and repeat the command, which makes the rest"
        ) from None


def _left(orders: Sequence[Order], made: Sequence[dict[str, Any]], folder: Path) -> list[Order]:
    """Return the videos that have no line, or no file. Raises: SettingsError: one was made with another seed."""
    seeds = {line.get("file"): line.get("seed") for line in made}
    for order in orders:
        if seeds.get(order.file, order.seed) != order.seed:
            raise SettingsError(
                f"{folder}: {order.file} was made with seed {seeds[order.file]}, expected {order.seed}; give the same "
                "--seed or another -o"
            )
    return [order for order in orders if order.file not in seeds or not (folder / order.file).is_file()]


def _model_of(config: TrainConfig) -> dict[str, Any]:
    """What the videos depend on; the rest of a configuration says where and how fast they are made."""
    content = config.model_dump(mode="json")
    agents = {**content["agents"], **content["serving"]["agents"]}
    return {
        "agents": {name: {key: agent[key] for key in _OF_AGENT} for name, agent in agents.items()},
        "clip": content["clip"],
        **{key: content["serving"][key] for key in _OF_SERVING},
    }


def _keep_model(path: Path, model: dict[str, Any]) -> None:
    """Record what makes the videos. Raises: SettingsError: the folder has videos of another model."""
    try:
        before = parse_object(read_foreign(path, MAX_RECORD_NBYTES))
    except FileNotFoundError:
        replace_text(path, json.dumps(model, indent=1) + "\n")
        return
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: cannot be read ({error}); choose another -o") from None
    changed = [name for name in model if before.get(name) != model[name]]
    if changed:
        raise SettingsError(
            f"{path.parent}: has videos of another model (its {', '.join(changed)} differ); choose another -o"
        )
