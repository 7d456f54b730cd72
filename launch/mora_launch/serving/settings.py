"""Settings of generation and serving: the section `serving` of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from mora_runtime.schema import PositiveInt, Settings
from pydantic import AliasChoices, Field

from mora_launch.chat.endpoint import ChatSettings
from mora_launch.config.adapters_config import AdaptersConfig
from mora_launch.config.agent_config import AgentConfig
from mora_launch.config.capability import PICTURES, Capability
from mora_launch.config.chain_names import AgentName
from mora_launch.telemetry.settings import TracingSettings


class ServedAgentConfig(AgentConfig):
    """An additional agent: a model that takes over some capabilities from the agents of the trained chain."""

    # The agents of the chain keep all other capabilities. `abilities` is the old name of this key.
    capabilities: tuple[Capability, ...] = Field(
        min_length=1, validation_alias=AliasChoices("capabilities", "abilities")
    )


class PromptAgentSettings(ChatSettings):
    """The prompt agent: offline templates, or a language model behind an OpenAI-compatible endpoint."""

    # offline rules, a language model, or no prompt agent, for models that know few words
    kind: Literal["template", "openai", "none"] = "template"
    model: str = "gpt-4o"  # asked by kind `openai`
    max_retries: int = Field(default=1, ge=0)  # fewer than elsewhere, because a client waits for the prompt

    @property
    def is_on(self) -> bool:
        """Whether there is a prompt agent."""
        return self.kind != "none"


class ServingSettings(Settings):
    """Models, servers, batches and limits of `generate` and `serve`."""

    checkpoint: str | None = None  # RUN or RUN:STEP: trained weights and z to use instead of the agents' options
    average: bool = False  # the checkpoint's moving average instead of its weights
    agents: dict[AgentName, ServedAgentConfig] = Field(default_factory=dict)  # in addition to the chain's
    adapters: AdaptersConfig = AdaptersConfig()  # LoRA adapters that requests may name
    max_adapter_nbytes: PositiveInt = 2 << 30  # of all adapters of one agent, which each of its servers keeps in memory
    servers: dict[str, PositiveInt] = Field(default_factory=dict)  # number of servers by agent; default 1
    # requests in one call, by capability; 1 for those that are not named
    max_batch: dict[str, PositiveInt] = Field(default_factory=lambda: dict.fromkeys(PICTURES, 4))
    gather_s: float = Field(default=0.01, ge=0.0)  # how long an idle server waits to fill a batch
    max_waiting: PositiveInt = 256  # requests in progress; beyond that the answer is 429
    # megapixel-steps (frames x pixels x denoising steps) of requests in progress; None = so many default requests, and
    # any one that the other limits admit
    max_waiting_cost: float | None = Field(default=None, gt=0.0)
    max_video_jobs: PositiveInt = 4  # tasks that run at the same time; others wait
    max_reviews: PositiveInt = 64  # video jobs under review, which do not count in `max_waiting`
    max_waiting_nbytes: PositiveInt = 4 << 30  # of decoded pictures and videos of waiting jobs
    max_kept_reviews: PositiveInt = 256  # stopped reviews; the oldest expire first
    max_review_nbytes: PositiveInt = 1 << 30  # on disk, of all unfinished reviews
    keep_videos_s: float = Field(default=3600.0, gt=0.0)  # how long finished jobs are kept
    keep_reviews_s: float = Field(default=7 * 86400.0, gt=0.0)  # how long stopped reviews are kept
    max_upload_nbytes: PositiveInt = 64 << 20  # of all files of one request
    max_prompt_length: PositiveInt = 4000  # characters
    max_seconds: float = Field(default=60.0, gt=0.0)  # of a requested video
    max_frames_read: PositiveInt = 1000  # of an uploaded video
    sizes: tuple[str, ...] = ()  # more sizes of pictures, as WIDTHxHEIGHT, in addition to the agent's
    call_deadline_s: float = Field(default=1800.0, gt=0.0)  # of one call to a server
    edit_strength: float = Field(default=0.6, gt=0.0, le=1.0)  # of image-to-image by instruction
    review_timeout_s: float = Field(default=3600.0, gt=0.0)  # then the session is stopped, to be resumed later
    prompts: PromptAgentSettings = PromptAgentSettings()
    tracing: TracingSettings = TracingSettings()  # of `serve`


def check_served(settings: ServingSettings, agents: Mapping[str, AgentConfig]) -> None:
    """Check that agents, capabilities and servers are consistent.

    Args:
        agents: the configuration's `agents`.

    Raises:
        ValueError: names the wrong key and what was expected.
    """
    for name in settings.agents:
        if name in {*agents, "coordinator", "front"}:
            raise ValueError(f"serving.agents.{name}: this name is taken; choose another")
    owners: dict[str, str] = {}
    sections = {f"agents.{name}": agent for name, agent in agents.items()}
    for key, agent in {
        **sections,
        **{f"serving.agents.{name}": each for name, each in settings.agents.items()},
    }.items():
        for capability in agent.capabilities or ():
            if capability in owners:
                raise ValueError(
                    f"{key}.capabilities: {owners[capability].rpartition('.')[2]} already has {capability}; only one "
                    "agent may have it, so that the same seed gives the same bytes"
                )
            owners[capability] = key
    unknown = set(settings.servers) - {*agents, *settings.agents}
    if unknown:
        known = ", ".join([*agents, *settings.agents])
        raise ValueError(f"serving.servers: no agent is named {', '.join(sorted(unknown))} (known: {known})")
