"""The section `synthesis` of a configuration: the settings of rounds. Like all sections it refuses unknown keys."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from mora_runtime.schema import PositiveInt, Settings
from pydantic import BeforeValidator, Field, model_validator

from mora_launch.chat.endpoint import ChatSettings
from mora_launch.rounds.judging.criteria import CRITERIA
from mora_launch.rounds.judging.emphasis import Emphasis


class EndpointSettings(ChatSettings):
    """A judge or prompt writer behind an endpoint."""

    temperature: float | None = Field(default=0.0, ge=0.0)  # for a judge; the prompt writer overrides it
    max_tokens: PositiveInt | None = 512  # of an answer


class LocalModelSettings(Settings):
    """A multimodal model in a server process on this machine, which runs only while it judges."""

    environment: str = "sd3"  # one whose package has the kind `multimodal`
    model: str  # folder in transformers' layout, or a Hub id: LLaVA-OneVision or Qwen2-VL
    dtype: Literal["float32", "bfloat16"] = "bfloat16"  # of the weights
    device: str = "cpu"  # cpu, or cuda:N
    num_threads: PositiveInt = 1  # torch's threads of the server
    max_new_tokens: PositiveInt = 512  # of one answer
    timeout_s: float = Field(default=300.0, gt=0.0)  # of one answer
    start_deadline_s: float = Field(default=900.0, gt=0.0)  # includes loading the model


class PromptSettings(Settings):
    """The source of prompts."""

    # made by rules; those of the moving shapes that training may show; by a language model; or read from a file
    source: Literal["grammar", "shapes", "endpoint", "file"] = "grammar"
    file: str | None = None  # one prompt per line
    endpoint: EndpointSettings | None = None
    mode: Literal["few_shot", "zero_shot"] = "few_shot"  # with examples, or from the instruction only
    max_similarity: float = Field(default=0.8, gt=0.0, le=1.0)  # Jaccard of two prompts' word pairs
    max_length: PositiveInt = 600  # characters

    @model_validator(mode="after")
    def _complete(self) -> PromptSettings:
        if self.source == "endpoint" and self.endpoint is None:
            raise ValueError("source `endpoint` needs the section `endpoint` with its model")
        if self.source == "file" and self.file is None:
            raise ValueError("source `file` needs `file`, a path to a file with one prompt per line")
        return self


class JudgeSettings(Settings):
    """One of the two judges."""

    # measures of the pixels; whether drawn shapes agree with the prompt; a model behind an endpoint; or a model in a
    # server of this machine
    kind: Literal["measured", "shapes", "endpoint", "local"] = "measured"
    emphasis: Emphasis = "even"  # for kinds `measured` and `shapes`: what counts more
    endpoint: EndpointSettings | None = None
    local: LocalModelSettings | None = None
    num_frames: PositiveInt = 4  # of each candidate, shown to a model
    frame_height: PositiveInt = 224  # pixels; never enlarged

    @model_validator(mode="after")
    def _complete(self) -> JudgeSettings:
        if self.kind == "endpoint" and self.endpoint is None:
            raise ValueError("kind `endpoint` needs the section `endpoint` with its model")
        if self.kind == "local" and self.local is None:
            raise ValueError("kind `local` needs the section `local` with model")
        return self


def _yaml_word(value: Any) -> Any:
    return "off" if value is False else value  # YAML reads a bare `off` as false


class SynthesisSettings(Settings):
    """Settings of rounds. As in the paper: 16 prompts, 4 candidates, two judges, and a person if they disagree."""

    num_rounds: PositiveInt = 2  # each trains on what it has made and continues with the trained weights
    prompts_per_round: int = Field(default=16, ge=0)  # sets of candidates to judge
    num_candidates: int = Field(default=4, ge=2, le=9)  # videos of each prompt
    prompts: PromptSettings = PromptSettings()
    judges: tuple[JudgeSettings, JudgeSettings] = (
        JudgeSettings(emphasis="picture"),
        JudgeSettings(emphasis="motion"),
    )
    criteria: tuple[str, ...] = tuple(CRITERIA)  # a random one of these for each set
    review: Annotated[Literal["person", "off"], BeforeValidator(_yaml_word)] = "person"  # off: the mean rank decides
    weights: Literal["weights", "average"] = "weights"  # part of the checkpoint that makes the next candidates
    num_evaluation_prompts: int = Field(default=4, ge=0)  # held out: measured before and after, never trained on
    evaluation_prompts: str | None = None  # file with one held-out prompt a line; None = of the grammar or the shapes
    # Dimensions of `evaluation` to measure on the held-out videos before and after each round: [motion_smoothness]
    evaluation_metrics: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _known_criteria(self) -> SynthesisSettings:
        unknown = sorted(set(self.criteria) - set(CRITERIA))
        if unknown or not self.criteria:
            raise ValueError(f"criteria: unknown `{', '.join(unknown)}`; known are {', '.join(CRITERIA)}")
        if self.prompts_per_round == 0:
            raise ValueError("prompts_per_round is 0: a round without prompts trains on nothing; set at least 1")
        if self.evaluation_metrics and self.num_evaluation_prompts == 0:
            raise ValueError("evaluation_metrics needs videos of held-out prompts: set num_evaluation_prompts")
        return self
