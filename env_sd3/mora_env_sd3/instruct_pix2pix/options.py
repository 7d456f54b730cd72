"""Options of InstructPix2Pix's agent. Checking them imports no model library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mora_environment.interface import Interface, Port
from pydantic import Field

from mora_env_sd3.instruct_pix2pix.published import NUM_PARAMETERS
from mora_env_sd3.unet.options import UnetOptions


class InstructPix2PixOptions(UnetOptions):
    """Options of InstructPix2Pix (`kind: instruct_pix2pix`): a picture edited by an instruction.

    A request's pictures have their own size. In a chain, given pictures are scaled to cover `height` and `width` and
    cropped at the centre.
    """

    published: ClassVar[Mapping[str, Mapping[str, int]]] = NUM_PARAMETERS

    num_inference_steps: int = Field(default=100, ge=1, le=1000)  # denoising steps
    guidance_scale: float = Field(default=7.5, ge=0.0)  # by the instruction; <= 1 switches both guidances off
    image_guidance_scale: float = Field(default=1.5, ge=1.0)  # by the given picture; a higher one changes it less
    negative_prompt: str = ""  # replaces the instruction in the other two predictions of guidance

    def interface(self) -> Interface:
        """A transform: images of any size to images of its own. Its loss compares with first frames of targets."""
        picture = Port(modality="images", height=self.height, width=self.width)
        return Interface(
            takes={"images": Port(modality="images")},
            gives={"images": picture},
            has_loss=True,
            needs_targets=True,
            has_text=True,
            has_modulation=True,
            generates=picture,
            has_noise=True,
        )
