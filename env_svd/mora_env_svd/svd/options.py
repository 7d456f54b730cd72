"""Options of Stable Video Diffusion's agent. Checking them imports no model library."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from mora_environment.component import Component
from mora_environment.interface import Interface, Port
from mora_environment.model_folder import count_parameters, model_components
from mora_environment.weights.weights_source import WeightsSource
from mora_runtime.schema import Settings
from pydantic import Field, model_validator

from mora_env_svd.common_options import NBYTES, check_gradient_steps, count_component
from mora_env_svd.svd.published import NUM_PARAMETERS


class SvdOptions(Settings):
    """Options of Stable Video Diffusion (`kind: svd`): image to video and continuation."""

    model: str  # folder in diffusers' layout (relative to the checkout), or a Hub id
    unet: str | None = None  # folder of trained UNet weights, instead of those in `model`
    # Folder or Hub id with `text_encoder/` and `tokenizer/`, whose rows start z. None = the model's own, if any.
    text_encoder: str | None = None
    # What z starts from without a text encoder: CLIP's embeddings of grey pictures, or random rows of the same length.
    modulation_start: Literal["grey_image", "random"] = "grey_image"
    modulation_rows: int = Field(default=1, ge=1)  # number of rows of z without a text encoder
    dtype: Literal["float32", "bfloat16"] = "float32"  # for UNet, image encoder and text encoder
    vae_dtype: Literal["float32", "bfloat16"] = "float32"  # for the autoencoder

    num_frames: int = Field(ge=2)  # of a clip; the published models have 14 (SVD) or 25 (XT)
    height: int = Field(ge=8, multiple_of=8)  # pixels
    width: int = Field(ge=8, multiple_of=8)  # pixels
    gradient_checkpointing: bool = False  # for UNet, autoencoder and image encoder
    decode_chunk_size: int = Field(default=14, ge=1)  # frames decoded at once; more frames flicker less

    fps: int = Field(default=7, ge=1)  # frames per second that the model is told
    motion_bucket_id: int = Field(default=127, ge=0)  # amount of motion that the model is told
    noise_aug_strength: float = Field(default=0.02, ge=0.0)  # of the noise on the given picture; the model is told it

    num_inference_steps: int = Field(default=25, ge=1, le=1000)  # model calls of sampling
    min_guidance_scale: float = Field(default=1.0, ge=0.0)  # of the first frame
    max_guidance_scale: float = Field(default=3.0, ge=0.0)  # of the last frame; at most 1 switches guidance off
    # K: `forward` gives finished frames with gradient through the last K model calls of sampling. None: no `forward`.
    gradient_steps: Annotated[int, Field(ge=1)] | Literal["all"] | None = None

    @model_validator(mode="after")
    def _steps_fit(self) -> SvdOptions:
        check_gradient_steps(self.gradient_steps, self.num_inference_steps)
        return self

    def text_source(self) -> str | None:
        """The folder or Hub id of the text encoder; None if there is none."""
        if self.text_encoder is not None:
            return self.text_encoder
        return self.model if (Path(self.model) / "text_encoder").is_dir() else None

    def components(self) -> list[Component]:
        """Models that an agent with these options loads."""
        if self.unet is not None:
            count_parameters(Path(self.unet), self.unet)  # refuses a folder without weights
        nbytes = NBYTES[self.dtype]
        found = [
            *model_components(
                self.model,
                ("unet", "image_encoder"),
                trainable="unet",
                dtype_nbytes=nbytes,
                published=NUM_PARAMETERS,
            ),
            *model_components(
                self.model, ("vae",), trainable="unet", dtype_nbytes=NBYTES[self.vae_dtype], published=NUM_PARAMETERS
            ),
        ]
        source = self.text_source()
        if source is not None:
            count = count_component(source, "text_encoder", NUM_PARAMETERS)
            found.append(
                Component(
                    name="text_encoder", num_parameters=count, dtype_nbytes=nbytes, trainable=False, is_unloaded=True
                )
            )
        return found

    def weights_sources(self) -> list[WeightsSource]:
        """Files that an agent with these options loads."""
        stems = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "image_encoder": "model"}
        if self.unet is not None:
            stems.pop("unet")

        def source(option: str, name: str, subfolder: str, file: str, weights: str | None = None) -> WeightsSource:
            return WeightsSource(option=option, name=name, subfolder=subfolder, files=(file,), weights=weights)

        found = [
            source("model", self.model, "scheduler", "scheduler_config.json"),
            source("model", self.model, "feature_extractor", "preprocessor_config.json"),
            *(source("model", self.model, name, "config.json", stem) for name, stem in stems.items()),
        ]
        text = self.text_source()
        if text is not None:
            found.append(source("text_encoder", text, "text_encoder", "config.json", "model"))
            found.append(
                WeightsSource(option="text_encoder", name=text, subfolder="tokenizer", extras=("*.json", "*.txt"))
            )
        return found

    def weights_folder(self) -> str:
        """The folder of the UNet."""
        return self.unet or f"{self.model}/unet"

    def interface(self) -> Interface:
        """An objective over first frames of any size, which generates clips; a transform too, with `gradient_steps`."""
        clip = Port(modality="frames", height=self.height, width=self.width, num_frames=self.num_frames)
        return Interface(
            takes={"images": Port(modality="images")},
            gives={} if self.gradient_steps is None else {"frames": clip},
            has_loss=True,
            needs_targets=True,
            has_modulation=True,
            generates=clip,
            has_noise=True,
        )
