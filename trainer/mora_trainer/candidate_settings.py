"""Settings of the process that makes candidate videos. Torch-free: the launcher writes them."""

from __future__ import annotations

from mora_data.settings import ClipShape
from mora_runtime.schema import PositiveInt, Settings
from pydantic import Field

from mora_trainer.settings import ModulationSettings

VIDEO_FILE = "frames.mkv"  # lossless: what judges see and training reads
PREVIEW_FILE = "video.mp4"  # the same for people; H.264 gives other bytes for the same frames now and then
FIRST_FRAME_FILE = "first-frame.png"  # O_1 as the image agent gave it, before the video agent saw it
NOISE_FILE = "noise.safetensors"  # initial noise of both agents, float32
RECORD_FILE = "candidate.json"


class CandidateOrder(Settings):
    """One video to make."""

    prompt: str
    image_seed: int = Field(ge=0)
    video_seed: int = Field(ge=0)
    folder: str  # absolute; is there, whole, once the candidate is made


class CandidateSettings(Settings):
    """The resolved settings of one such process; it reads nothing else."""

    run_dir: str
    role: str = "coordinator.0"
    servers: dict[str, str]  # image: image.0
    lock_hashes: dict[str, str]  # by agent, of the environment that its server must run in
    modulation: ModulationSettings
    checkpoint: str | None = None  # folder of the run's checkpoint that the servers load; None = as they were started
    average: bool = False  # its moving average instead of its weights
    embeddings: str | None = None  # z_i as a checkpoint holds them; None starts from the text encoders
    seed: int
    clip: ClipShape
    orders: tuple[CandidateOrder, ...]
    num_threads: PositiveInt = 1
    arena_nbytes: PositiveInt
    spill_nbytes: int = Field(ge=0)
    call_deadline_s: float = Field(default=600.0, gt=0.0)
