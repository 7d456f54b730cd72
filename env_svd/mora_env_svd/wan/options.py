"""Options of Wan's agent. Checking them imports no model library."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from mora_environment.component import Component
from mora_environment.interface import Interface, Port
from mora_environment.model_folder import count_parameters, published_count
from mora_environment.weights.weights_source import WeightsSource
from mora_runtime.schema import Settings
from pydantic import Field, model_validator

from mora_env_svd.common_options import NBYTES, check_gradient_steps
from mora_env_svd.wan.layout import WanLayout, WanSize, layout_of, model_configs
from mora_env_svd.wan.published import NUM_PARAMETERS

_STEM = "diffusion_pytorch_model"


class WanOptions(Settings):
    """Options of Wan (`kind: wan`): clips from a first frame."""

    model: str  # folder in diffusers' layout (relative to the checkout), or a Hub id; docs/wan.md lists the models
    transformer: str | None = None  # folder of trained transformer weights, instead of those in `model`
    dtype: Literal["float32", "bfloat16"] = "float32"  # for transformer and text encoder
    vae_dtype: Literal["float32", "bfloat16"] = "float32"  # for autoencoder and image encoder

    num_frames: int = Field(default=81, ge=5)  # of a clip: 4k + 1
    height: int = Field(ge=16, multiple_of=16)  # pixels; Wan 2.2 TI2V-5B: a multiple of 32
    width: int = Field(ge=16, multiple_of=16)  # pixels; as the height
    gradient_checkpointing: bool = False  # for transformer and autoencoder

    negative_prompt: str = ""  # of guidance
    max_sequence_length: int = Field(default=512, ge=1, le=512)  # text tokens; zeros follow a shorter prompt

    num_inference_steps: int = Field(default=50, ge=1, le=1000)  # of sampling
    guidance_scale: float = Field(default=5.0, ge=0.0)  # <= 1 switches guidance off
    flow_shift: float | None = Field(default=None, gt=0.0)  # of the sampler's noise levels; null = the model's own
    # K: `forward` gives finished frames with gradient through the last K steps of sampling. None: no `forward`.
    gradient_steps: Annotated[int, Field(ge=1)] | Literal["all"] | None = None

    @model_validator(mode="after")
    def _size_fits(self) -> WanOptions:
        layout = self.layout()
        if layout is not None:
            WanSize(layout, self.num_frames, self.height, self.width)
        return self

    @model_validator(mode="after")
    def _steps_fit(self) -> WanOptions:
        check_gradient_steps(self.gradient_steps, self.num_inference_steps)
        return self

    def layout(self) -> WanLayout | None:
        """The layout of the model; None if `model` is neither a folder nor a known Hub id.

        Raises:
            ConfigError: the model has a layout that this kind does not have.
        """
        configs = model_configs(self.model)
        return None if configs is None else layout_of(configs, self.model)

    def components(self) -> list[Component]:
        """Models that an agent with these options loads."""
        own, vae = NBYTES[self.dtype], NBYTES[self.vae_dtype]
        nbytes = {"transformer": own, "vae": vae, "text_encoder": own}
        nbytes |= dict.fromkeys(self._further_models(), own)
        if "image_encoder" in nbytes:
            nbytes["image_encoder"] = vae
        return [
            Component(
                name=name,
                num_parameters=self._count(name),
                dtype_nbytes=dtype_nbytes,
                trainable=name == "transformer",
                is_unloaded=name == "text_encoder",
            )
            for name, dtype_nbytes in nbytes.items()
        ]

    def weights_sources(self) -> list[WeightsSource]:
        """Files that an agent with these options loads."""
        stems = {"vae": _STEM, "text_encoder": "model"}
        if self.transformer is None:
            stems["transformer"] = _STEM
        files = {"scheduler": "scheduler_config.json"}
        for name in self._further_models():
            stems[name] = "model" if name == "image_encoder" else _STEM
        if "image_encoder" in stems:
            files["image_processor"] = "preprocessor_config.json"

        def source(
            subfolder: str, *files: str, weights: str | None = None, extras: tuple[str, ...] = ()
        ) -> WeightsSource:
            return WeightsSource(
                option="model", name=self.model, subfolder=subfolder, files=files, extras=extras, weights=weights
            )

        return [
            source("", "model_index.json"),
            source("tokenizer", "tokenizer_config.json", extras=("*.json", "*.model")),
            *(source(name, file) for name, file in files.items()),
            *(source(name, "config.json", weights=stem) for name, stem in stems.items()),
        ]

    def weights_folder(self) -> str:
        """The folder of the transformer."""
        return self.transformer or f"{self.model}/transformer"

    def interface(self) -> Interface | None:
        """An objective over first frames of any size, which generates clips; a transform too, with `gradient_steps`.

        None for a model that serves requests only: one that always needs a last frame too (FLF2V), because a chain
        gives it one picture, and one of two transformers (A14B).
        """
        layout = self.layout()
        if layout is not None and not layout.trains:
            return None
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

    def _further_models(self) -> list[str]:
        """Folders of models that not every layout has."""
        layout = self.layout()
        if layout is None:
            return []
        has_two = layout.boundary_ratio is not None
        return ["image_encoder"] * layout.has_image_encoder + ["transformer_2"] * has_two

    def _count(self, name: str) -> int:
        if name == "transformer" and self.transformer is not None:
            return count_parameters(Path(self.transformer), self.transformer)
        folder = Path(self.model)
        if folder.is_dir():
            return count_parameters(folder / name, self.model)
        return published_count(self.model, name, NUM_PARAMETERS)
