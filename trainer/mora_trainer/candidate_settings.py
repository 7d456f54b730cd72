"""Settings of the process that makes candidate videos. Torch-free, because the launcher writes them."""

from __future__ import annotations

from typing import Annotated

from mora_data.settings import ClipShape
from mora_runtime.schema import PositiveInt, Settings
from pydantic import Field

from mora_trainer.settings import ModulationSettings, StageSettings

VIDEO_FILE = "frames.mkv"  # lossless; for judges and for training
PREVIEW_FILE = "video.mp4"  # the same frames for people; H.264 does not always give the same bytes
FIRST_FRAME_FILE = "first-frame.png"  # the picture that the chain's last agent started from
NOISE_FILE = "noise.safetensors"  # initial noise by agent, float32
RECORD_FILE = "candidate.json"


class CandidateOrder(Settings):
    """One video to make."""

    prompt: str
    seeds: dict[str, Annotated[int, Field(ge=0)]]  # by agent
    folder: str  # absolute; it appears, complete, once the candidate is made


class CandidateSettings(Settings):
    """The resolved settings of one process that makes candidates; it reads nothing else."""

    run_dir: str
    role: str = "coordinator.0"
    chain: tuple[StageSettings, ...] = Field(min_length=1)
    modulation: ModulationSettings
    checkpoint: str | None = None  # folder of the checkpoint that the servers load; None = weights from their start
    average: bool = False  # load its moving average instead of its weights
    embeddings: str | None = None  # a checkpoint's file of z_i; None = initial values from the text encoders
    seed: int
    clip: ClipShape
    orders: tuple[CandidateOrder, ...]
    num_threads: PositiveInt = 1
    arena_nbytes: PositiveInt
    spill_nbytes: int = Field(ge=0)
    call_deadline_s: float = Field(default=600.0, gt=0.0)
