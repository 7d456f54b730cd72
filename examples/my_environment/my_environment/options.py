"""Options of the kinds. The launcher asks for them before anything loads, so this module imports no model library."""

from __future__ import annotations

from pathlib import Path

from mora_environment import Component, Interface, Port
from mora_environment.model_folder import count_parameters
from mora_runtime.schema import Settings
from pydantic import Field

IMAGES = {"images": Port(modality="images")}  # of any size


class StylistOptions(Settings):
    """Options of the stylist."""

    model: str  # folder with its weights

    def components(self) -> list[Component]:
        """The models that load, for the launcher's table of memory."""
        number = count_parameters(Path(self.model), self.model)
        return [Component(name="stylist", num_parameters=number, dtype_nbytes=4, trainable=True)]

    def interface(self) -> Interface:
        """A transform, images to images. It has no text encoder, and chooses the first rows of its z itself."""
        return Interface(takes=IMAGES, gives=IMAGES, has_modulation=True)


class BrightnessOptions(Settings):
    """Options of the critic."""

    wanted: float = Field(default=0.75, ge=0.0, le=1.0)  # mean brightness of a perfect picture; 0 = black, 1 = white

    def interface(self) -> Interface:
        """A critic: it scores images, and its loss is differentiable in them."""
        return Interface(takes=IMAGES, has_loss=True, is_critic=True)
