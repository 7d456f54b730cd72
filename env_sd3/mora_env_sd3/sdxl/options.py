"""Options of Stable Diffusion XL's agent. Checking them imports no model library."""

from __future__ import annotations

from typing import ClassVar

from mora_environment.component import Component
from mora_environment.interface import Interface, Port
from mora_environment.model_folder import model_components
from mora_environment.weights.weights_source import WeightsSource
from pydantic import Field

from mora_env_sd3.sdxl.published import NUM_PARAMETERS
from mora_env_sd3.sdxl.size_condition import Pair, SizeCondition
from mora_env_sd3.unet.options import NBYTES, UnetOptions


class SdxlOptions(UnetOptions):
    """Options of Stable Diffusion XL (`kind: sdxl`)."""

    text_encoders: ClassVar[tuple[str, ...]] = ("text_encoder", "text_encoder_2")
    published: ClassVar = NUM_PARAMETERS

    negative_prompt: str | None = None  # None: zeros in place of an embedding, where the model's folder says so
    refiner: str | None = None  # folder or Hub id of a refiner, whose UNet takes the last steps; it never trains
    high_noise_share: float = Field(default=0.8, gt=0.0, lt=1.0)  # of the noise levels, the base model's with a refiner
    original_size: Pair | None = None  # height and width before cropping, told to the model; None = the picture's
    crops_coords_top_left: Pair = (0, 0)  # top and left of the crop, told to the model
    target_size: Pair | None = None  # height and width after cropping, told to the model; None = the picture's
    # `original_size` for the other half of guidance; from noise, only together with `negative_target_size`.
    negative_original_size: Pair | None = None
    negative_crops_coords_top_left: Pair = (0, 0)  # `crops_coords_top_left` for the other half of guidance
    negative_target_size: Pair | None = None  # `target_size` for the other half of guidance
    aesthetic_score: float = 6.0  # told to a refiner
    negative_aesthetic_score: float = 2.5  # told to a refiner in the other half of guidance

    def size_condition(self) -> SizeCondition:
        """The options on size, crop and scores."""
        return SizeCondition(**{name: getattr(self, name) for name in SizeCondition.__dataclass_fields__})

    def components(self) -> list[Component]:
        """Models that an agent with these options loads."""
        found = super().components()
        if self.refiner is not None:
            nbytes = NBYTES[self.dtype]
            (unet,) = model_components(
                self.refiner, ("unet",), trainable="", dtype_nbytes=nbytes, published=NUM_PARAMETERS
            )
            found.append(unet.model_copy(update={"name": "refiner"}))
        return found

    def weights_sources(self) -> list[WeightsSource]:
        """Files that an agent with these options loads."""
        found = super().weights_sources()
        if self.refiner is not None:
            files = {"": "model_index.json", "scheduler": "scheduler_config.json", "unet": "config.json"}
            found += [
                WeightsSource(
                    option="refiner",
                    name=self.refiner,
                    subfolder=subfolder,
                    files=(file,),
                    weights="diffusion_pytorch_model" if subfolder == "unet" else None,
                )
                for subfolder, file in files.items()
            ]
        return found

    def interface(self) -> Interface:
        """A source: prompts to images. Its own loss compares with the first frames of the targets."""
        return Interface(
            gives={"images": Port(modality="images", height=self.height, width=self.width)},
            has_loss=True,
            needs_targets=True,
            has_text=True,
            has_modulation=True,
            has_noise=True,
        )
