"""Settings of generation and serving: the section `serving` of a configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from mora_runtime.schema import Settings
from pydantic import Field

PositiveInt = Annotated[int, Field(ge=1)]


class PromptAgentSettings(Settings):
    """What enhances prompts: templates offline, or a language model behind an OpenAI-compatible endpoint."""

    kind: Literal["template", "openai"] = "template"
    base_url: str | None = None  # of vLLM, Ollama, llama.cpp, ...; None = OpenAI itself
    model: str = "gpt-4o"
    timeout_s: float = Field(default=60.0, gt=0.0)  # of one attempt
    max_retries: int = Field(default=1, ge=0)


class ServingSettings(Settings):
    """Servers, batches and limits."""

    checkpoint: str | None = None  # RUN or RUN:STEP: trained weights and z, instead of what the agents' options name
    average: bool = False  # the checkpoint's moving average instead of its weights
    servers: dict[Literal["image", "video"], PositiveInt] = Field(default_factory=dict)  # of each agent; default 1
    max_batch: dict[str, PositiveInt] = Field(default_factory=lambda: {"text_to_image": 4, "image_to_image": 4})
    max_waiting: PositiveInt = 256  # requests under way; beyond that the answer is 429
    max_video_jobs: PositiveInt = 4  # tasks that run at the same time; others wait
    keep_videos_s: float = Field(default=3600.0, gt=0.0)  # finished jobs; afterwards they are expired
    max_upload_nbytes: PositiveInt = 64 << 20
    max_prompt_length: PositiveInt = 4000  # characters
    max_seconds: float = Field(default=60.0, gt=0.0)  # of a video that is asked for
    max_frames_read: PositiveInt = 1000  # of a video that is sent
    sizes: tuple[str, ...] = ()  # pictures' WIDTHxHEIGHT besides the agent's own
    call_deadline_s: float = Field(default=1800.0, gt=0.0)
    edit_strength: float = Field(default=0.6, gt=0.0, le=1.0)  # of image-to-image by instruction
    review_timeout_s: float = Field(default=3600.0, gt=0.0)  # then the session is stopped, to be resumed later
    prompts: PromptAgentSettings = PromptAgentSettings()
