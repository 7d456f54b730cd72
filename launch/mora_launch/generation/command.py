"""`mora generate`: runs one task from files to a file, on servers that it starts and stops."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mora_data.reading.fitting import Clip, fitted
from mora_data.reading.timeline import Video, at_rate
from mora_runtime.errors import SettingsError
from mora_runtime.process.run_directory import RunDirectory
from rich.console import Console
from rich.progress import Progress

from mora_launch.chat.prompt_agent import prompt_agent
from mora_launch.checkpoints.adapter_catalog import adapter_places
from mora_launch.config.adapters_config import AdaptersConfig
from mora_launch.config.train_config import TrainConfig
from mora_launch.decoding.picture import read_picture
from mora_launch.decoding.video import read_video
from mora_launch.generation.input_file import read_input
from mora_launch.generation.interruption import interruptible
from mora_launch.generation.result_file import ResultFile
from mora_launch.review.decision import StageResult, Stopped
from mora_launch.review.repeated_stages import RepeatedStages
from mora_launch.review.reviewed_stages import ReviewedStages, run_reviewed
from mora_launch.review.session import ReviewSession
from mora_launch.review.terminal import TerminalReviewer
from mora_launch.serving.adapter_choices import check_name
from mora_launch.serving.running_servers import RunningServers
from mora_launch.serving.server_pool import ServerPool
from mora_launch.serving.terms import LoraChoice, Terms
from mora_launch.tasks.agents import Agents
from mora_launch.tasks.catalog import TASKS, called
from mora_launch.tasks.media import check_encodable, chosen_codec, encode, format_of
from mora_launch.tasks.procedures import run_task
from mora_launch.tasks.request import (
    TaskRequest,
    check_fields,
    check_fps,
    check_request,
    check_seconds,
    check_strength,
)


@dataclass(frozen=True)
class GenerateOptions:
    """The options of the command line. They are written into the result's JSON, from which `--repeat` reads them."""

    task: str
    prompt: str
    seed: int
    image: str | None = None
    videos: tuple[str, ...] = ()
    seconds: float | None = None
    strength: float | None = None
    steps: int | None = None
    guidance: float | None = None
    enhance: bool = True
    size: str | None = None  # of the output, WIDTHxHEIGHT
    fps: float | None = None  # of the output
    codec: str | None = None
    negative_prompt: str | None = None
    lora: str | None = None  # NAME or NAME:SCALE

    def recorded(self) -> dict[str, Any]:
        """Return what a result's JSON says about them; some are named only where they have a value."""
        absent = {name for name in ("negative_prompt", "lora") if self.__dict__[name] is None}
        return {name: value for name, value in self.__dict__.items() if name not in absent}


def generate(
    options: GenerateOptions,
    config: TrainConfig,
    output: Path,
    console: Console,
    *,
    session_folder: Path | None = None,
    expected_inputs: dict[str, str] | None = None,
    expected_lora: Mapping[str, str] | None = None,
    before: Sequence[StageResult] = (),
) -> Path:
    """Run the task and write `output` and `output`.json.

    Args:
        expected_lora: SHA-256 of the adapters of the run that is repeated.
        session_folder: folder of a review at the terminal, new or to be resumed; None accepts every stage unseen.
        expected_inputs: SHA-256 of each input file of the run that is repeated.
        before: accepted result of each stage of the run that is repeated.

    Raises:
        MoraError: an option is invalid, or a server failed.
    """
    kind = format_of(output)
    chosen_codec(kind, options.codec)
    size = output_size(options.size)
    fps = None if options.fps is None else check_fps(options.fps)
    request, hashes = read_request(options, config)
    check_encodable(kind, size, fps or request.fps)
    check_fields(request, config.serving)  # before any model is loaded
    lora = None if options.lora is None else LoraChoice.parse(options.lora, "--lora")
    config = _with_adapters_of(lora, config)
    if fps is not None and options.seconds is not None:
        check_seconds(options.seconds, fps, config.serving)
    for note in request.notes:
        console.print(f"{note}", markup=False)
    for name, digest in (expected_inputs or {}).items():
        if hashes.get(name) != digest:
            raise SettingsError(f"--repeat: {name} has changed since that run (its SHA-256 differs)")
    result = ResultFile(output, [path for path in (options.image, *options.videos) if path is not None])
    asked = {**options.recorded(), "inputs": hashes}
    session = None if session_folder is None else ReviewSession.create(session_folder, asked)
    with (
        tempfile.TemporaryDirectory(prefix="mora-generate-") as folder,
        RunDirectory.create(Path(folder) / "run", lock=True) as directory,
        RunningServers(config, directory, console) as servers,
        interruptible(),
    ):
        check_request(request, servers.pool, config.serving)
        check_strength(options.strength, options.task, servers.pool)
        used = {} if lora is None else {"lora": _checked(lora, request.task, servers.pool, expected_lora)}
        clip, taken = _run(request, servers.pool, config, Terms(lora=lora), session, console, before)
        models = {capability: servers.pool.describe(capability)["model"] for capability in servers.pool.capabilities()}
    if fps is not None:
        clip = at_rate(Video(clip, request.fps), fps)
    if size is not None:
        clip = fitted(clip, *size)
    metadata: dict[str, Any] = {
        "mora": {**options.recorded(), "videos": list(options.videos)},
        "inputs": hashes,
        "models": models,
        "stages": [candidate.model_dump(mode="json", exclude={"file"}) for candidate in taken],
        "config": config.model_dump(mode="json"),
        **({"audio": "left out"} if request.loses_sound else {}),
        **used,
    }
    result.write(encode(clip, fps or request.fps, kind, metadata, options.codec), metadata)
    console.print(
        f"{output} ({len(clip)} frames of {clip.shape[2]}x{clip.shape[1]}) and {result.beside.name}", markup=False
    )
    return output


def _run(
    request: TaskRequest, pool: ServerPool, config: TrainConfig, terms: Terms, session: ReviewSession | None,
    console: Console, before: Sequence[StageResult],
) -> tuple[Clip, Sequence[StageResult]]:  # fmt: skip
    """Return the frames and the accepted result of each stage."""
    with Progress(console=console, transient=True, disable=session is not None or not console.is_terminal) as progress:
        bar = progress.add_task(request.task, total=None)

        def on_step(capability: str, step: int, num_steps: int) -> None:
            progress.update(bar, description=capability, completed=step, total=num_steps)

        agents = Agents(
            pool, prompt_agent(config.serving.prompts), sampling=request.sampling(),
            deadline_s=config.serving.call_deadline_s, on_step=on_step, terms=terms,
        )  # fmt: skip
        if session is None:
            stages = RepeatedStages(request, agents, before)
            return run_task(request, agents, stages), stages.taken
        ask = TerminalReviewer(console, request.fps)
        try:
            clip = run_reviewed(request, agents, ReviewedStages(session, agents, request, ask), session)
            return clip, session.state().accepted
        except (Stopped, KeyboardInterrupt) as stopped:
            session.stop()
            raise type(stopped)(f"stopped; repeat the command to resume the session in {session.folder}") from None


def _with_adapters_of(lora: LoraChoice | None, config: TrainConfig) -> TrainConfig:
    """Return the configuration with the named adapters alone, which are recorded. Raises: BadRequest: no such name."""
    named: dict[str, str] = {}
    if lora is not None:
        places = adapter_places(config.serving.adapters)
        check_name(lora.name, places)
        named[lora.name] = str(Path(places[lora.name]).absolute())
    serving = config.serving.model_copy(update={"adapters": AdaptersConfig(named=named)})
    return config.model_copy(update={"serving": serving})


def _checked(lora: LoraChoice, task: str, pool: ServerPool, expected: Mapping[str, str] | None) -> dict[str, Any]:
    """Return what is recorded of adapters.

    Raises:
        BadRequest: they are for other agents than those of the task.
        SettingsError: they are not those of the run that is repeated.
    """
    pool.adapters.check(lora, pool.agents_of(called(TASKS[task], pool.capabilities())))
    record = pool.adapters.record(lora)
    if expected is not None and record["sha256"] != expected:
        raise SettingsError(f"--repeat: the adapters `{lora.name}` have changed since that run (their SHA-256 differs)")
    return record


def read_request(options: GenerateOptions, config: TrainConfig) -> tuple[TaskRequest, dict[str, str]]:
    """Return the request with its files decoded, and the SHA-256 of each file."""
    hashes: dict[str, str] = {}

    def content(name: str, path: str) -> bytes:
        data = read_input(Path(path), f"--{name.partition(' ')[0]}")
        hashes[name] = hashlib.sha256(data).hexdigest()
        return data

    image = None if options.image is None else read_picture(content("image", options.image), "--image")
    videos: tuple[Video, ...] = tuple(
        read_video(content(f"video {number}", path), "--video", max_frames=config.serving.max_frames_read)
        for number, path in enumerate(options.videos)
    )
    strength = config.serving.edit_strength if options.strength is None else options.strength
    request = TaskRequest(
        options.task, options.prompt, options.seed, config.clip.fps, image, videos, options.seconds,
        strength, options.steps, options.guidance,
        options.enhance and config.serving.prompts.is_on, options.negative_prompt,
    )  # fmt: skip
    return request, hashes


def output_size(size: str | None) -> tuple[int, int] | None:
    """Parse `WIDTHxHEIGHT` to (height, width); None if not given."""
    if size is None:
        return None
    width, _, height = size.partition("x")
    if not (width.isdecimal() and height.isdecimal() and 2 <= int(width) <= 8192 and 2 <= int(height) <= 8192):
        raise SettingsError(f"--size: expected WIDTHxHEIGHT, 2 to 8192 each, got {size[:40]}")
    return int(height), int(width)
