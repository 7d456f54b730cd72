"""`mora generate --repeat FILE.json`: repeats the run that a result's JSON describes.

The file may come from a stranger. Everything that it asks for is shown before anything loads. Endpoints and keys come
from the user's own configuration, so the file cannot send data anywhere. Called by the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from mora_runtime.errors import SettingsError
from mora_runtime.files.foreign_file import read_foreign
from mora_runtime.files.foreign_json import parse_object
from mora_runtime.files.shown_text import shown_line
from mora_runtime.schema import Settings, read_settings
from pydantic import ConfigDict, Field
from rich.console import Console

from mora_launch.config.agent_config import AgentConfig
from mora_launch.config.train_config import TrainConfig, stored_config
from mora_launch.generation.command import GenerateOptions
from mora_launch.limits import (
    MAX_NUM_STAGE_STEPS,
    MAX_NUM_STAGES,
    MAX_PATH_LENGTH,
    MAX_RECORDED_TEXT_LENGTH,
    MAX_REPEATED_RUN_NBYTES,
)
from mora_launch.review.decision import StageResult
from mora_launch.serving.settings import PromptAgentSettings
from mora_launch.tasks.request import TaskName

_SHOWN_LENGTH = 300
_PathText = Annotated[str, Field(min_length=1, max_length=MAX_PATH_LENGTH)]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Options(Settings):
    """`GenerateOptions` as read from a file."""

    model_config = ConfigDict(strict=True)

    task: TaskName
    prompt: Annotated[str, Field(max_length=MAX_RECORDED_TEXT_LENGTH)]
    seed: int
    image: _PathText | None = None
    videos: Annotated[tuple[_PathText, ...], Field(max_length=8, strict=False)] = ()
    seconds: float | None = None
    strength: float | None = None
    steps: int | None = None
    guidance: float | None = None
    enhance: bool = True
    size: Annotated[str, Field(max_length=40)] | None = None
    fps: float | None = None
    codec: Annotated[str, Field(max_length=40)] | None = None
    negative_prompt: Annotated[str, Field(max_length=MAX_RECORDED_TEXT_LENGTH)] | None = None
    lora: Annotated[str, Field(max_length=100)] | None = None


class _Lora(Settings):
    """The adapters of the run."""

    name: Annotated[str, Field(max_length=100)]
    scale: float
    sha256: Annotated[dict[str, _Sha256], Field(max_length=64)]


class _Content(Settings):
    """The whole file."""

    mora: _Options
    inputs: Annotated[dict[str, _Sha256], Field(max_length=16)]
    config: dict[str, Any]
    stages: Annotated[tuple[StageResult, ...], Field(max_length=MAX_NUM_STAGES)] = ()
    models: dict[str, str] = Field(default_factory=dict)  # for a person to read
    audio: str | None = None  # as well
    lora: _Lora | None = None


@dataclass(frozen=True)
class RepeatedRun:
    """The run that a file describes, with the user's own endpoints."""

    options: GenerateOptions
    inputs: dict[str, str]  # SHA-256 of each input
    config: TrainConfig  # the file's, with the user's own endpoints
    stages: tuple[StageResult, ...]
    asked: PromptAgentSettings | None  # the language model of that run, only for display
    lora_sha256: dict[str, str]  # of its adapters

    @classmethod
    def read(cls, path: Path, own: Callable[[], TrainConfig]) -> RepeatedRun:
        """Read and check a file.

        Args:
            own: reads the user's configuration; called only if a language model or an environment of it is needed.

        Raises:
            SettingsError: the file is invalid; the message is one line.
        """
        try:
            content = parse_object(read_foreign(path, MAX_REPEATED_RUN_NBYTES))
            run = read_settings(_Content, content, source="it")
            _check_stages(run.stages)
            return cls._with_own_endpoints(run, own)
        except OSError as error:
            raise _refused(path, error.strerror or str(error)) from None
        except (ValueError, SettingsError) as error:
            raise _refused(path, str(error)) from None

    @classmethod
    def _with_own_endpoints(cls, run: _Content, own: Callable[[], TrainConfig]) -> RepeatedRun:
        config = dict(run.config)
        config.pop("synthesis", None)  # it names endpoints, and no task needs it
        if config.pop("environments", None):  # a stranger's file must not choose what is installed or run
            config["environments"] = own().model_dump(mode="json")["environments"]
        serving = config.get("serving", {})
        if not isinstance(serving, dict):
            raise ValueError("`config.serving` must be an object")
        serving = dict(serving)
        prompts = serving.pop("prompts", None)
        asked = _asked(prompts)
        if isinstance(prompts, dict) and prompts.get("kind") == "none":
            serving["prompts"] = {"kind": "none"}  # names no endpoint, and the repeated run records the same
        serving.pop("servers", None)  # one server per agent is enough for one run
        if isinstance(adapters := serving.get("adapters"), dict):
            serving["adapters"] = {"named": adapters.get("named", {})}  # no folder is listed
        read = stored_config({**config, "serving": serving}, "its `config`")
        for name, agent in [*read.agents.items(), *read.serving.agents.items()]:
            _check_tiny_models(name, agent)
        if asked is not None and not _holds_prompt(run.stages):
            serving_now = read.serving.model_copy(update={"prompts": own().serving.prompts})
            read = read.model_copy(update={"serving": serving_now})
        hashes = {} if run.lora is None else run.lora.sha256
        return cls(GenerateOptions(**dict(run.mora)), dict(run.inputs), read, run.stages, asked, hashes)

    def show(self, path: Path, console: Console) -> None:
        """Print what the file asks for."""
        console.print(f"{path} asks for:", markup=False)
        for line in self._lines():
            console.print(f"  {shown_line(line, _SHOWN_LENGTH)}", markup=False)

    def _lines(self) -> Iterator[str]:
        options = self.options
        yield f"{options.task}: {options.prompt}"
        for path in (options.image, *options.videos):
            if path is not None:
                yield f"reads {path}"
        for name, agent in [*self.config.agents.items(), *self.config.serving.agents.items()]:
            given = {"weights": agent.weights, "adapters": agent.adapters}
            files = {**agent.options, **{key: folder for key, folder in given.items() if folder is not None}}
            named = ", ".join(f"{key} {value}" for key, value in files.items())
            yield f"{name} ({agent.environment}), only from this machine: {named}"
        if self.config.serving.checkpoint is not None:
            yield f"checkpoint {self.config.serving.checkpoint}"
        for name, place in self.config.serving.adapters.named.items():
            yield f"adapters {name} from {place}"
        if self.asked is not None:
            yield from self._lines_about_endpoint(self.asked)

    def _lines_about_endpoint(self, asked: PromptAgentSettings) -> Iterator[str]:
        where = f"{asked.model} at {asked.base_url or 'OpenAI'}"
        if _holds_prompt(self.stages):
            yield f"the prompt that {where} wrote, which is in the file; no language model is asked"
            return
        own = self.config.serving.prompts
        others = {"template": "the templates", "none": "no prompt agent, as in `serving.prompts`,"}
        instead = others.get(own.kind, f"{own.model} at {own.base_url or 'OpenAI'}")
        yield f"a prompt by {where}; {instead} of your --config is used instead, so the result may differ"


def _asked(content: Any) -> PromptAgentSettings | None:
    """Return the language model that wrote the prompt of a run, only for display."""
    if not isinstance(content, dict) or content.get("kind", "template") in ("template", "none"):
        return None
    model, url = content.get("model", "a language model"), content.get("base_url")
    if not isinstance(model, str) or not (url is None or isinstance(url, str)):
        raise ValueError("`config.serving.prompts` must name `model` and `base_url` as texts")
    return PromptAgentSettings.model_construct(kind="openai", model=model, base_url=url)


def _check_tiny_models(name: str, agent: AgentConfig) -> None:
    """Refuse a folder for tiny models outside models/: they would be created there."""
    if agent.tiny_models is None:
        return
    parts = PurePosixPath(agent.tiny_models).parts
    if parts[:1] != ("models",) or ".." in parts or len(parts) < 2:
        raise ValueError(f"agents.{name}.tiny_models: expected a folder in models/, got {agent.tiny_models[:80]}")


def _holds_prompt(stages: Sequence[StageResult]) -> bool:
    """Whether the stages contain the prompt that a language model wrote."""
    return any(stage.kind == "text" and stage.stage == "prompt" for stage in stages)


def _check_stages(stages: tuple[StageResult, ...]) -> None:
    for stage in stages:
        if stage.file is not None:
            raise ValueError(f"stage {stage.stage[:40]!r}: a result's JSON has no field `file`")
        texts = [stage.stage, stage.prompt, *(step.prompt or "" for step in stage.steps)]
        if len(stage.steps) > MAX_NUM_STAGE_STEPS or max(map(len, texts)) > MAX_RECORDED_TEXT_LENGTH:
            raise ValueError(
                f"stage {stage.stage[:40]!r}: expected at most {MAX_NUM_STAGE_STEPS} steps and texts of "
                f"{MAX_RECORDED_TEXT_LENGTH} characters"
            )


def _refused(path: Path, why: str) -> SettingsError:
    return SettingsError(
        f"--repeat {path}: expected the JSON that mora generate writes next to a result ({shown_line(why)})"
    )
