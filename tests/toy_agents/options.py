"""Options of the toy agents."""

from mora_environment.interface import Interface, Port
from mora_runtime.schema import Settings

SIDE = 32
NUM_FRAMES = 5
IMAGES = Port(modality="images", height=SIDE, width=SIDE)
FRAMES = Port(modality="frames", height=SIDE, width=SIDE, num_frames=NUM_FRAMES)


class ToyOptions(Settings):
    """Options of every toy."""

    seed: int = 0  # of the weights
    weights: str | None = None  # folder of trained ones


class SourceOptions(ToyOptions):
    """Noise to pictures."""

    def interface(self) -> Interface:
        return Interface(
            gives={"images": IMAGES}, has_loss=True, needs_targets=True, has_modulation=True, has_noise=True
        )


class TransformOptions(ToyOptions):
    """Pictures to pictures."""

    def interface(self) -> Interface:
        return Interface(takes={"images": IMAGES}, gives={"images": IMAGES}, has_modulation=True)


class MoverOptions(ToyOptions):
    """Pictures to clips, without z."""

    def interface(self) -> Interface:
        return Interface(takes={"images": IMAGES}, gives={"frames": FRAMES})


class LastOptions(ToyOptions):
    """Pictures to clips, with a loss."""

    def interface(self) -> Interface:
        return Interface(
            takes={"images": IMAGES}, has_loss=True, needs_targets=True, has_modulation=True, generates=FRAMES
        )


class CriticOptions(Settings):
    """Scores clips."""

    def interface(self) -> Interface:
        return Interface(takes={"frames": FRAMES}, has_loss=True, is_critic=True)


class MetricOptions(Settings):
    """Measures brightness and its change."""

    dimensions: tuple[str, ...]  # what it pretends to measure
    version: str = "1"  # of all of them
    factor: float = 1.0  # of the score
    delay_s: float = 0.0  # that a measurement takes
    min_side: int = 128  # a video with a smaller side is refused
    fatal_num_frames: int = 0  # a video of so many frames ends the process
    weights: str | None = None  # a file that must exist when the agent is loaded

    def interface(self) -> Interface:
        return Interface(is_metric=True)


class CaptionerOptions(Settings):
    """Describes frames; the options of a real captioner, which change nothing."""

    model: str = "toy"
    dtype: str = "float32"
    max_new_tokens: int = 1


class EncoderOptions(Settings):
    """Counts letters; the options of a real text encoder, which change nothing."""

    model: str = "toy"
    pooling: str = "mean"
