"""`OpenSoraInpaint`: the image-to-video and transition model, conditioned on given frames of the clip."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from mora_env_opensora.models.errors import InputError, WeightsFileError
from mora_env_opensora.models.patch_embed import PatchEmbed
from mora_env_opensora.models.transformer import OpenSoraT2V
from mora_env_opensora.models.transformer_config import InpaintConfig, TransformerConfig


class OpenSoraInpaint(OpenSoraT2V):
    """`OpenSoraT2V` that also embeds the masked video's latents and the mask into the tokens (693 tensors).

    `hidden_states` carry [noisy latents | masked-video latents | mask] on the channel axis. The two added projections
    start at zero, so a fresh model equals its text-to-video model, and no gradient reaches the given frames until the
    projections change.
    """

    config_class: ClassVar[type[TransformerConfig]] = InpaintConfig

    def __init__(self, config: InpaintConfig) -> None:
        super().__init__(config)
        self.pos_embed_masked_video = _conditioning_embed(config)
        self.pos_embed_mask = _conditioning_embed(config)

    @property
    def input_channels(self) -> int:
        return 3 * self.config.in_channels

    def embed(self, latents: Tensor) -> Tensor:
        if latents.shape[2] < 2:
            raise InputError(
                f"OpenSoraInpaint: expected at least 2 latent frames, got {latents.shape[2]}; "
                "a clip of one frame has nothing to fill in"
            )
        noisy, masked_video, mask = latents.chunk(3, dim=1)
        return self.pos_embed(noisy) + self.pos_embed_masked_video(masked_video) + self.pos_embed_mask(mask)

    def _check(self, latents: Tensor, text: Tensor, text_mask: Tensor | None, images: int) -> None:
        super()._check(latents, text, text_mask, images)
        if images:
            raise InputError(f"OpenSoraInpaint use_image_num: expected 0, got {images}; it takes no joint images")

    @classmethod
    def from_text_to_video(
        cls, path: str | Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> Self:
        """Make a model for image-to-video training from a text-to-video folder.

        Raises:
            ConfigError, WeightsFileError: the folder is broken, or not of a text-to-video model.
        """
        base = OpenSoraT2V.from_pretrained(path, dtype=dtype)
        model = cls.from_config(base.config.to_dict() | {"vae_scale_factor_t": base.config.in_channels}).to(dtype)
        model.init_from_text_to_video(base.state_dict())
        return model.to(device).eval()

    @torch.no_grad()
    def init_from_text_to_video(self, weights: Mapping[str, Tensor], *, load_mask: bool = False) -> None:
        """Start image-to-video training from a text-to-video state dict.

        Common tensors are copied. The masked video's patch embedding is a copy of `pos_embed.proj`, and so is the
        mask's if `load_mask`. The zero projections stay zero. A trained image-to-video checkpoint is refused, because
        copying would overwrite its masked-video embedding; load it with `from_pretrained`.

        Raises:
            WeightsFileError: the weights do not fit, or belong to an image-to-video model.
        """
        if any(key.startswith(("pos_embed_mask", "pos_embed_masked_video")) for key in weights):
            raise WeightsFileError(
                "init_from_text_to_video: expected text-to-video weights, got image-to-video ones; "
                "use OpenSoraInpaint.from_pretrained"
            )
        own = self.state_dict()
        common = {key: tensor for key, tensor in own.items() if not key.startswith("pos_embed_mask")}
        wrong = sorted(common.keys() ^ weights.keys()) or sorted(
            key for key in common if common[key].shape != weights[key].shape
        )
        if wrong:
            raise WeightsFileError(
                f"init_from_text_to_video: {len(wrong)} tensors are missing, unexpected or of another shape: "
                f"{', '.join(wrong[:8])}"
            )
        for key, tensor in common.items():
            tensor.copy_(weights[key])
        for name in ("weight", "bias"):
            own[f"pos_embed_masked_video.0.proj.{name}"].copy_(weights[f"pos_embed.proj.{name}"])
            if load_mask:
                own[f"pos_embed_mask.0.proj.{name}"].copy_(weights[f"pos_embed.proj.{name}"])


def _conditioning_embed(config: InpaintConfig) -> nn.Sequential:
    projection = nn.Linear(config.width, config.width, bias=False)
    nn.init.zeros_(projection.weight)
    return nn.Sequential(PatchEmbed(config), projection)
