"""Options of the toy kinds. Importing them loads no torch."""

from mora_environment import Component, Interface, Port
from mora_runtime.errors import SettingsError
from mora_runtime.schema import Settings
from pydantic import Field


class PlainOptions(Settings):
    """A kind that is in no chain and tells nothing."""


class NoMethodOptions(Settings):
    """Promises a method that its agent lacks."""

    def interface(self) -> Interface:
        """It has no method `initial_noise`."""
        return Interface(has_noise=True)


class PaintOptions(Settings):
    """Options of the agent that paints over pictures."""

    weights: str  # file with the agent's weight
    side: int = Field(default=4, ge=1)

    def components(self) -> list[Component]:
        """The one model."""
        if self.side > 64:
            raise SettingsError(f"side {self.side}: expected at most 64")
        return [Component(name="brush", num_parameters=3, dtype_nbytes=4, trainable=True)]

    def interface(self) -> Interface:
        """A transform with a loss of its own."""
        port = Port(modality="images", height=self.side, width=self.side)
        return Interface(
            takes={"pictures": port},
            gives={"images": port},
            has_loss=True,
            needs_targets=True,
            has_text=True,
            has_modulation=True,
            generates=Port(modality="frames", height=self.side, width=self.side, num_frames=2),
            has_noise=True,
        )


class CriticOptions(Settings):
    """Options of the agent that scores clips by their brightness."""

    brightness: float = 0.5

    def interface(self) -> Interface:
        """A critic of clips of any size."""
        return Interface(takes={"frames": Port(modality="frames")}, is_critic=True, has_loss=True)


class MetricOptions(Settings):
    """Options of the metric of brightness."""

    scale: float = 1.0

    def interface(self) -> Interface:
        """A metric."""
        return Interface(is_metric=True)
