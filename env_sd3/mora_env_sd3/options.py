"""Options of the agents of this environment. Checking them imports no model library."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mora_environment.component import Component
from mora_environment.interface import Interface, Port
from mora_environment.model_folder import count_parameters, model_components
from mora_environment.weights.weights_source import WeightsSource
from mora_runtime.schema import Settings
from pydantic import Field, model_validator

from mora_env_sd3.steps import skipped_steps

# Parameters of the published SD3-medium, for the memory table while the weights are not on this machine.
PUBLISHED = {
    "stabilityai/stable-diffusion-3-medium-diffusers": {
        "transformer": 2_028_328_000,
        "text_encoder": 123_650_304,
        "text_encoder_2": 694_659_840,
        "text_encoder_3": 4_762_310_656,
        "vae": 83_819_683,
    }
}
_TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
_TOKENIZER_FILES = ("*.json", "*.txt", "*.model")


class Sd3Options(Settings):
    """Options of the Stable Diffusion 3 text-to-image agent (`kind: sd3`)."""

    model: str  # folder in diffusers' layout (relative to the checkout), or a Hub id
    transformer: str | None = None  # folder of trained transformer weights, instead of those in `model`
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the weights
    height: int = Field(ge=16, multiple_of=16)  # pixels
    width: int = Field(ge=16, multiple_of=16)  # pixels
    num_inference_steps: int = Field(default=28, ge=1)  # denoising steps
    guidance_scale: float = Field(default=7.0, ge=0.0)  # <= 1 switches guidance off
    negative_prompt: str = ""  # of guidance
    max_sequence_length: int = Field(default=256, ge=1, le=512)  # T5 tokens
    gradient_steps: int | Literal["all"] = 1  # K: the last K denoising steps carry gradient (DRaFT-K)
    gradient_checkpointing: bool = False  # compute activations again in the backward, which needs less memory
    # Requests: a picture's bytes are the same in any batch. False = one pass for the whole batch, which is faster.
    batch_invariant: bool = True
    position: Literal["after", "before", "feature"] = "after"  # of z_1: on the sequence axis, or by a learned map
    encoders: Literal["joint", "each"] = "joint"  # z_1 from T5 only on the joint sequence, or rows from each encoder

    @model_validator(mode="after")
    def _steps_fit(self) -> Sd3Options:
        num_steps, told = self.steps_that_run()
        if isinstance(self.gradient_steps, int) and not 1 <= self.gradient_steps <= num_steps:
            raise ValueError(f"gradient_steps {self.gradient_steps} must be between 1 and {told}, or be `all`")
        return self

    def steps_that_run(self) -> tuple[int, str]:
        """Number of denoising steps of `forward`, and the words for it in messages."""
        return self.num_inference_steps, f"num_inference_steps {self.num_inference_steps}"

    def components(self) -> list[Component]:
        """Models that an agent with these options loads."""
        if self.transformer is not None:
            count_parameters(Path(self.transformer), self.transformer)  # refuses a folder without weights
        return model_components(
            self.model,
            ("transformer", "vae", *_TEXT_ENCODERS),
            trainable="transformer",
            unloaded=_TEXT_ENCODERS,
            dtype_nbytes=2 if self.dtype == "bfloat16" else 4,
            published=PUBLISHED,
        )

    def weights_sources(self) -> list[WeightsSource]:
        """Files that an agent with these options loads."""
        diffused = ("vae",) if self.transformer is not None else ("transformer", "vae")
        stems = dict.fromkeys(diffused, "diffusion_pytorch_model") | dict.fromkeys(_TEXT_ENCODERS, "model")
        tokenizers = [name.replace("text_encoder", "tokenizer") for name in _TEXT_ENCODERS]

        def source(
            subfolder: str, file: str, weights: str | None = None, extras: tuple[str, ...] = ()
        ) -> WeightsSource:
            return WeightsSource(
                option="model", name=self.model, subfolder=subfolder, files=(file,), extras=extras, weights=weights
            )

        return [
            source("", "model_index.json"),
            source("scheduler", "scheduler_config.json"),
            *(source(name, "tokenizer_config.json", extras=_TOKENIZER_FILES) for name in tokenizers),
            *(source(name, "config.json", weights=stem) for name, stem in stems.items()),
        ]

    def weights_folder(self) -> str:
        """The folder of the transformer."""
        return self.transformer or f"{self.model}/transformer"

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


class Sd3ImageToImageOptions(Sd3Options):
    """Options of the Stable Diffusion 3 image-to-image agent (`kind: sd3_image_to_image`)."""

    # Share of the denoising steps that run over a given image. 1 starts from noise alone, so the image has no effect.
    strength: float = Field(default=0.6, gt=0.0, le=1.0)

    @model_validator(mode="after")
    def _skips_a_step(self) -> Sd3ImageToImageOptions:
        num_steps = self.num_inference_steps
        if self.strength < 1.0 and not skipped_steps(num_steps, self.strength):
            raise ValueError(
                f"strength {self.strength} skips none of the {num_steps} denoising steps, so the given image would "
                f"have no effect; expected at most {(num_steps - 1) / num_steps:.3f}"
            )
        return self

    def steps_that_run(self) -> tuple[int, str]:
        """Number of denoising steps that run over a given image, and the words for it in messages."""
        num_left = self.num_inference_steps - skipped_steps(self.num_inference_steps, self.strength)
        return num_left, f"{num_left}, the steps that strength {self.strength} leaves of {self.num_inference_steps}"

    def interface(self) -> Interface:
        """A transform: images of any size to images of its own."""
        return Interface(
            takes={"images": Port(modality="images")},
            gives={"images": Port(modality="images", height=self.height, width=self.width)},
            has_text=True,
            has_modulation=True,
            has_noise=True,
        )


class MultimodalOptions(Settings):
    """Options of a multimodal model that judges videos (`kind: multimodal`)."""

    model: str  # folder in transformers' layout (relative to the checkout), or a Hub id: LLaVA-OneVision or Qwen2-VL
    dtype: Literal["float32", "bfloat16"] = "bfloat16"  # of the weights
    max_new_tokens: int = Field(default=512, ge=1)  # of one answer

    def components(self) -> list[Component]:
        """The model, which does not train. A model that is not downloaded yet counts as zero parameters."""
        folder = Path(self.model)
        number = count_parameters(folder, self.model) if folder.is_dir() else 0
        dtype_nbytes = 2 if self.dtype == "bfloat16" else 4
        return [Component(name="model", num_parameters=number, dtype_nbytes=dtype_nbytes, trainable=False)]

    def weights_sources(self) -> list[WeightsSource]:
        """Files that the agent loads."""
        extras = (*_TOKENIZER_FILES, "*.jinja")
        return [WeightsSource(option="model", name=self.model, files=("config.json",), extras=extras, weights="model")]
