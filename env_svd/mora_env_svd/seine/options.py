"""Options of SEINE's agent. Checking them imports no model library."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from mora_environment.component import Component
from mora_environment.interface import Interface, Port
from mora_environment.model_folder import count_parameters, published_count
from mora_environment.weights.weights_source import WeightsSource
from mora_runtime.schema import Settings
from pydantic import Field, model_validator

from mora_env_svd.common_options import NBYTES, check_gradient_steps, count_component
from mora_env_svd.seine.given_frames import given_frames
from mora_env_svd.seine.published import NUM_PARAMETERS, SEINE


class SeineOptions(Settings):
    """Options of SEINE (`kind: seine`): image to video, continuation and transition."""

    # A folder (relative to the checkout) or a downloaded Hub id, with `seine.pt`, or with `config.json` and
    # `diffusion_pytorch_model.safetensors` as checkpoints have them.
    model: str
    base: str  # Stable Diffusion 1.4, folder or Hub id: its `vae/`, `text_encoder/` and `tokenizer/`
    dtype: Literal["float32", "bfloat16"] = "float32"  # for UNet and text encoder
    vae_dtype: Literal["float32", "bfloat16"] = "float32"  # for the autoencoder

    num_frames: int = Field(default=16, ge=2)  # of a clip
    height: int = Field(ge=8, multiple_of=8)  # pixels
    width: int = Field(ge=8, multiple_of=8)  # pixels
    gradient_checkpointing: bool = False  # for UNet and autoencoder
    decoded_at_once: int = Field(default=4, ge=1)  # frames; no frame's pixels depend on another's

    # Put after each prompt without a space, as upstream's samples do: "smooth transition." or ", slow motion.".
    additional_prompt: str = ""
    negative_prompt: str = ""  # of guidance

    # Masks that training draws from: `firstK`, or `onelastK` for transitions. The first frame is the one that the agent
    # before gives; all other given frames are the target clip's own.
    training_masks: tuple[str, ...] = Field(default=("first1",), min_length=1)

    sample_method: Literal["ddpm", "ddim"] = "ddpm"  # of sampling
    num_inference_steps: int = Field(default=250, ge=2, le=1000)  # model calls of sampling
    guidance_scale: float = Field(default=8.0, ge=0.0)  # 1 = the prediction with text alone
    # K: `forward` gives finished frames with gradient through the last K model calls of sampling. None: no `forward`.
    gradient_steps: Annotated[int, Field(ge=1)] | Literal["all"] | None = None

    @model_validator(mode="after")
    def _masks_fit(self) -> SeineOptions:
        for kind in self.training_masks:
            given = given_frames(kind, self.num_frames)
            if 0 not in given or len(given) == self.num_frames:
                raise ValueError(
                    f"training_masks: {kind} gives {len(given)} of {self.num_frames} frames; expected the first frame "
                    "to be given, and at least one to be generated"
                )
        return self

    @model_validator(mode="after")
    def _steps_fit(self) -> SeineOptions:
        check_gradient_steps(self.gradient_steps, self.num_inference_steps)
        return self

    def components(self) -> list[Component]:
        """Models that an agent with these options loads."""
        model, vae = NBYTES[self.dtype], NBYTES[self.vae_dtype]
        counts = {
            "unet": (self._count_unet(), model),
            "vae": (count_component(self.base, "vae", NUM_PARAMETERS), vae),
            "text_encoder": (count_component(self.base, "text_encoder", NUM_PARAMETERS), model),
        }
        return [
            Component(
                name=name,
                num_parameters=count,
                dtype_nbytes=dtype_nbytes,
                trainable=name == "unet",
                is_unloaded=name == "text_encoder",
            )
            for name, (count, dtype_nbytes) in counts.items()
        ]

    def weights_sources(self) -> list[WeightsSource]:
        """Files that an agent with these options loads."""
        stem = "diffusion_pytorch_model"
        return [
            WeightsSource(
                option="model", name=self.model, extras=("config.json",), weights=stem, otherwise=("seine.pt",)
            ),
            WeightsSource(option="base", name=self.base, subfolder="vae", files=("config.json",), weights=stem),
            WeightsSource(
                option="base", name=self.base, subfolder="text_encoder", files=("config.json",), weights="model"
            ),
            WeightsSource(option="base", name=self.base, subfolder="tokenizer", extras=("*.json", "*.txt")),
        ]

    def interface(self) -> Interface:
        """An objective over first frames of any size, which generates clips; a transform too, with `gradient_steps`."""
        clip = Port(modality="frames", height=self.height, width=self.width, num_frames=self.num_frames)
        return Interface(
            takes={"images": Port(modality="images")},
            gives={} if self.gradient_steps is None else {"frames": clip},
            has_loss=True,
            needs_targets=True,
            has_text=True,
            has_modulation=True,
            generates=clip,
            has_noise=True,
        )

    def _count_unet(self) -> int:
        folder = Path(self.model)
        if not folder.is_dir():
            return published_count(self.model, "unet", NUM_PARAMETERS)
        if (folder / "seine.pt").is_file() and not any(folder.glob("*.safetensors")):
            return NUM_PARAMETERS[SEINE]["unet"]  # a pickle tells no sizes without loading it
        return count_parameters(folder, self.model)
