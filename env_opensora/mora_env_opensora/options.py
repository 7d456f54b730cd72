"""Options of the video agent. Checking them imports no model library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from mora_environment.component import Component
from mora_environment.interface import Interface, Port
from mora_environment.model_folder import count_parameters, published_count
from mora_environment.weights.weights_source import Conversion, WeightsSource
from mora_runtime.errors import SettingsError
from mora_runtime.schema import Settings
from pydantic import AfterValidator, Field, model_validator

from mora_env_opensora.text.prompts import NEGATIVE_PROMPT

_RELEASE = "LanguageBind/Open-Sora-Plan-v1.2.0"
_MT5_XXL_ENCODER = 5_655_173_120
# Numbers of parameters of the published models, for the memory table while the weights are not on this machine.
PUBLISHED = {
    f"{_RELEASE}/93x480p_i2v": {"transformer": 2_782_603_024},
    f"{_RELEASE}/93x480p": {"transformer": 2_771_907_856},
    f"{_RELEASE}/29x480p": {"transformer": 2_771_907_856},
    f"{_RELEASE}/vae": {"vae": 239_189_991},
    "google/mt5-xxl": {"text_encoder": _MT5_XXL_ENCODER},
}

_TOKENIZER_FILES = ("spiece.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def _whole_latents(frames: int) -> int:
    if frames % 4 != 1:
        raise ValueError(
            f"expected 4k + 1 frames, of which the autoencoder makes k + 1; {frames // 4 * 4 + 1} would do"
        )
    return frames


class OpenSoraOptions(Settings):
    """Options of the Open-Sora-Plan v1.2 image-to-video agent (`kind: opensora`)."""

    # folder (relative to the checkout) or a downloaded Hub id `owner/repository[/folder]`
    model: str
    vae: str  # folder or Hub id
    text_encoder: str  # folder or Hub id of the mT5 encoder
    tokenizer: str | None = None  # default: the text encoder's folder, or `tokenizer/` next to it
    dtype: Literal["float32", "bfloat16"] = "float32"  # for transformer and text encoder
    vae_dtype: Literal["float32", "bfloat16"] = "float32"  # upstream trains with float32 and samples with bfloat16
    from_text_to_video: bool = False  # `model` is a text-to-video folder to start image-to-video training from

    num_frames: Annotated[int, AfterValidator(_whole_latents)] = Field(ge=5)  # of a clip: 4k + 1
    height: int = Field(ge=16, multiple_of=16)  # pixels
    width: int = Field(ge=16, multiple_of=16)  # pixels
    vae_tiling: bool = False  # decode in overlapping tiles, which needs less memory
    gradient_checkpointing: bool = False  # for the transformer and the autoencoder

    max_length: int = Field(default=512, ge=2)  # tokens, </s> included; longer prompts are cut
    clean_caption: bool = True  # clean prompts as upstream does
    # folder that stores encoded prompts between runs; None: in training, a folder in the run
    text_cache: str | None = None
    target_cache: str | None = None  # the same for target clips
    text_dropout: float = Field(default=0.0, ge=0.0, le=1.0)  # upstream trains with 0.1
    default_text_ratio: float = Field(default=0.5, ge=0.0, le=1.0)  # share of dropped texts not left empty

    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"  # what the transformer predicts
    # min-SNR weight of the loss; None = all timesteps count equally
    snr_gamma: float | None = Field(default=5.0, gt=0.0)
    noise_offset: float = Field(default=0.02, ge=0.0)  # strength of added noise that is one value a channel

    scheduler: Literal["pndm", "euler_ancestral", "euler", "ddim", "ddpm", "dpm_solver"] = "pndm"  # of sampling
    num_inference_steps: int = Field(default=100, ge=1)  # denoising steps of sampling
    guidance_scale: float = Field(default=7.5, ge=0.0)  # <= 1 switches guidance off
    negative_prompt: str = NEGATIVE_PROMPT  # of guidance
    # K: `forward` gives finished frames with gradient through the last K model calls of sampling. None: no `forward`.
    gradient_steps: Annotated[int, Field(ge=1)] | Literal["all"] | None = None

    @model_validator(mode="after")
    def _steps_fit(self) -> OpenSoraOptions:
        if self.scheduler == "pndm" and self.num_inference_steps < 4:
            raise ValueError(f"num_inference_steps {self.num_inference_steps}: pndm needs at least 4")
        if isinstance(self.gradient_steps, int) and self.gradient_steps > self.num_inference_steps:
            raise ValueError(
                f"gradient_steps {self.gradient_steps} must be between 1 and num_inference_steps "
                f"{self.num_inference_steps}, or be `all`"
            )
        return self

    def components(self) -> list[Component]:
        """Models that an agent with these options loads."""
        nbytes = {"float32": 4, "bfloat16": 2}
        model, vae = nbytes[self.dtype], nbytes[self.vae_dtype]
        counts = {
            "transformer": (_count(self.model, "transformer"), model),
            "vae": (_count(self.vae, "vae"), vae),
            "text_encoder": (_count_encoder(self.text_encoder), model),
        }
        return [
            Component(
                name=name,
                num_parameters=count,
                dtype_nbytes=dtype_nbytes,
                trainable=name == "transformer",
                is_unloaded=name == "text_encoder",
            )
            for name, (count, dtype_nbytes) in counts.items()
        ]

    def weights_sources(self) -> list[WeightsSource]:
        """Files that an agent with these options loads."""
        stem = "diffusion_pytorch_model"
        encoder = Conversion(
            file="pytorch_model.bin",
            dtype=self.dtype,
            prefixes=("shared.", "encoder."),  # without the decoder
            tied={"encoder.embed_tokens.weight": "shared.weight"},
            num_parameters=PUBLISHED.get(self.text_encoder, {}).get("text_encoder"),
        )
        found = [
            WeightsSource(option="model", name=self.model, files=("config.json",), weights=stem),
            WeightsSource(option="vae", name=self.vae, files=("config.json",), weights=stem, otherwise=("*.ckpt",)),
            WeightsSource(
                option="text_encoder", name=self.text_encoder, files=("config.json",), extras=_TOKENIZER_FILES,
                weights="model", conversion=encoder,
            ),
        ]  # fmt: skip
        if self.tokenizer is not None:
            own = WeightsSource(
                option="tokenizer", name=self.tokenizer, files=("tokenizer_config.json",), extras=_TOKENIZER_FILES
            )
            return [*found, own]
        outer, _, inner = self.text_encoder.rpartition("/")
        if inner and "/" in outer:  # a folder of a repository, whose tokenizer may be next to it
            found.append(WeightsSource(option="text_encoder", name=f"{outer}/tokenizer", extras=_TOKENIZER_FILES))
        return found

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


def _count(model: str, name: str) -> int:
    folder = Path(model)
    if not folder.is_dir():
        return published_count(model, name, PUBLISHED)
    if any(folder.glob("*.ckpt")):  # .ckpt files tell no sizes without loading them; use the published size
        return PUBLISHED[f"{_RELEASE}/vae"]["vae"]
    return count_parameters(folder, model)


def _count_encoder(model: str) -> int:
    """Count by the encoder's config, because the published weights are not safetensors and include a decoder."""
    if not Path(model).is_dir():
        return published_count(model, "text_encoder", PUBLISHED)
    try:
        config: dict[str, Any] = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
        width, inner = config["d_model"], config["num_heads"] * config["d_kv"]
        layer = 4 * width * inner + 3 * width * config["d_ff"] + 2 * width  # attention, gated feed-forward, two norms
        buckets = config.get("relative_attention_num_buckets", 32) * config["num_heads"]
        return int(config["vocab_size"] * width + config["num_layers"] * layer + buckets + width)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"`{model}`: expected the config.json of an mT5 encoder in it ({error})") from None
