"""Config of the autoencoder, with checked names of its blocks.

Keys that define the network have no defaults: upstream's class defaults describe another autoencoder, which the
published weights do not fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from mora_env_opensora.models.config_schema import OMIT, ConfigSchema

NORM_GROUPS = 32
CONVOLUTIONS = ("Conv2d", "CausalConv3d")
RESNETS = ("ResnetBlock2D", "ResnetBlock3D")
ATTENTIONS = ("AttnBlock3DFix", "AttnBlock3D")
DOWNSAMPLES = ("", "Downsample", "Spatial2xTime2x3DDownsample")
UPSAMPLES = ("", "SpatialUpsample2x", "Spatial2xTime2x3DUpsample")


@dataclass(frozen=True, kw_only=True)
class VAEConfig(ConfigSchema):
    """One entry per level in each tuple of names; level 0 is at pixel resolution."""

    hidden_size: int
    hidden_size_mult: tuple[int, ...]
    z_channels: int
    embed_dim: int
    num_res_blocks: int
    q_conv: str
    use_quant_layer: bool = True
    encoder_conv_in: str
    encoder_conv_out: str
    encoder_attention: str
    encoder_resnet_blocks: tuple[str, ...]
    encoder_spatial_downsample: tuple[str, ...]
    encoder_temporal_downsample: tuple[str, ...]
    encoder_mid_resnet: str
    decoder_conv_in: str
    decoder_conv_out: str
    decoder_attention: str
    decoder_resnet_blocks: tuple[str, ...]
    decoder_spatial_upsample: tuple[str, ...]
    decoder_temporal_upsample: tuple[str, ...]
    decoder_mid_resnet: str

    model_name: ClassVar[str] = "CausalVAEModel"
    accepted_class_names: ClassVar[tuple[str, ...]] = ("CausalVAEModel",)
    fixed: ClassVar[Mapping[str, tuple[object, ...]]] = {
        "attn_resolutions": ([],),
        "dropout": (0.0,),
        "double_z": (True,),
    }
    # `resolution` only places the attention of `attn_resolutions`; the rest are settings of upstream's trainer.
    ignored: ClassVar[Mapping[str, object]] = {
        "resolution": 256,
        "lr": OMIT,
        "loss_type": OMIT,
        "loss_params": OMIT,
        "warmup_steps": OMIT,
        "scheduler_params": OMIT,
    }

    def __post_init__(self) -> None:
        self.require_positive_int("hidden_size", "z_channels", "embed_dim", "num_res_blocks")
        self.require_bool("use_quant_layer")
        self.require(
            isinstance(self.hidden_size_mult, tuple) and len(self.hidden_size_mult) > 0
            and all(type(m) is int and m > 0 for m in self.hidden_size_mult),
            "hidden_size_mult", "a list of positive integers, one per level",
        )  # fmt: skip
        self.require(
            all(width % NORM_GROUPS == 0 for width in self.widths),
            "hidden_size", f"every level's width {self.widths} divisible by the {NORM_GROUPS} groups of the norms",
        )  # fmt: skip
        for key in ("encoder_conv_in", "encoder_conv_out", "decoder_conv_in", "decoder_conv_out", "q_conv"):
            self._require_name(key, CONVOLUTIONS)
        for key in ("encoder_mid_resnet", "decoder_mid_resnet"):
            self._require_name(key, RESNETS)
        for key in ("encoder_attention", "decoder_attention"):
            self._require_name(key, ATTENTIONS)
        for key in ("encoder_resnet_blocks", "decoder_resnet_blocks"):
            self._require_names(key, RESNETS)
        self._require_names("encoder_spatial_downsample", DOWNSAMPLES)
        self._require_names("decoder_spatial_upsample", UPSAMPLES)
        for key in ("encoder_temporal_downsample", "decoder_temporal_upsample"):
            self._require_names(key, ("",))
        self.require(
            self.use_quant_layer or self.embed_dim == self.z_channels,
            "embed_dim", f"z_channels = {self.z_channels} if there is no quant layer between them",
        )  # fmt: skip

    def _require_name(self, key: str, names: tuple[str, ...]) -> None:
        self.require(getattr(self, key) in names, key, f"one of {', '.join(map(repr, names))}")

    def _require_names(self, key: str, names: tuple[str, ...]) -> None:
        value, levels = getattr(self, key), len(self.hidden_size_mult)
        self.require(
            isinstance(value, tuple) and len(value) == levels and all(name in names for name in value),
            key, f"{levels} names, one per level of hidden_size_mult, each one of {', '.join(map(repr, names))}",
        )  # fmt: skip

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels per level."""
        return tuple(self.hidden_size * multiple for multiple in self.hidden_size_mult)

    @property
    def spatial_factor(self) -> int:
        """Pixels per latent cell along a side."""
        return 2 ** sum(name != "" for name in self.encoder_spatial_downsample)
