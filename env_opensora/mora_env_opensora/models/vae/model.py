"""`CausalVAEModel`: video pixels to latents and back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mora_env_opensora.models.checkpoint_files import read_training_checkpoint
from mora_env_opensora.models.errors import InputError
from mora_env_opensora.models.pretrained import PretrainedMixin
from mora_env_opensora.models.vae.coder import Decoder, Encoder
from mora_env_opensora.models.vae.config import VAEConfig
from mora_env_opensora.models.vae.convolution import make_convolution
from mora_env_opensora.models.vae.grey_chunks import GreyChunks
from mora_env_opensora.models.vae.posterior import DiagonalGaussian
from mora_env_opensora.models.vae.tiling import TilePlan, run_chunk, run_tiled, tiled_chunks


class CausalVAEModel(PretrainedMixin, nn.Module):
    """Pixels in [-1, 1], latents unscaled (callers apply the diffusion model's factor 0.18215).

    Samples of a batch are processed one after the other and, with tiling, clips larger than a tile in tiles. Peak
    memory is one tile plus the result. The tile sizes are plain attributes, in pixels or latent cells.
    """

    config_class: ClassVar[type[VAEConfig]] = VAEConfig
    config: VAEConfig

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        if config.use_quant_layer:
            self.quant_conv = make_convolution(config.q_conv, 2 * config.z_channels, 2 * config.embed_dim, 1)
            self.post_quant_conv = make_convolution(config.q_conv, config.embed_dim, config.z_channels, 1)
        self.use_tiling = False
        self.tile_sample_min_size = 256
        self.tile_latent_min_size = 256 // config.spatial_factor
        self.tile_sample_min_size_t = 33
        self.tile_latent_min_size_t = 16
        self.tile_overlap_factor = 0.125
        self._grey_chunks = GreyChunks()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make an autoencoder with fresh weights from upstream's config keys.

        Raises:
            ConfigError: a key or value is unknown, missing or unsupported; the message names it.
        """
        return cls(cls.config_class.parse(config))

    @classmethod
    def _read_weights(cls, folder: Path) -> dict[str, Tensor]:
        """As upstream, prefers a `.ckpt` of upstream's trainer to safetensors; of several it takes the last by name."""
        checkpoints = sorted(folder.glob("*.ckpt"))
        return read_training_checkpoint(checkpoints[-1]) if checkpoints else super()._read_weights(folder)

    @property
    def dtype(self) -> torch.dtype:
        return self.encoder.norm_out.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.encoder.norm_out.weight.device

    def enable_tiling(self, enabled: bool = True) -> None:
        self.use_tiling = enabled

    def enable_gradient_checkpointing(self, enabled: bool = True) -> None:
        """Recompute activations in the backward pass instead of keeping them.

        With tiles, `encode` recomputes each tile as a whole, and `decode` each tile and each block inside it: at the
        published size a tile has 22 GiB of activations in the encoder and 78 GiB in the decoder. Without tiles both
        recompute each block.
        """
        self.encoder.gradient_checkpointing = enabled
        self.decoder.gradient_checkpointing = enabled

    @contextmanager
    def calling(self, on_block: Callable[[], None]) -> Iterator[None]:
        """Call `on_block` before each block of each tile; an error that it raises ends `encode` or `decode` there."""
        self.encoder.on_block = self.decoder.on_block = on_block
        try:
            yield
        finally:
            self.encoder.on_block = self.decoder.on_block = None

    def encode(self, video: Tensor, *, given: Collection[int] | None = None) -> DiagonalGaussian:
        """Pixels (B, 3, F, H, W) -> posterior over latents (B, 4, T, H/8, W/8).

        F = 4k + 1 frames become T = k + 1. Other counts lose the frames that do not fill a latent frame; the pipelines
        refuse such clips.

        Args:
            given: indices (negative ones count from the end) of the frames that are not zero; all others must be zero
                in every sample. With tiles, a chunk of time without a given frame is then encoded once and its moments
                are used again, without a graph. The result is the same. None = any frame may differ from zero.

        Raises:
            InputError: `video` has not five axes or not 3 channels, or a side is not a multiple of 8.
        """
        factor = self.config.spatial_factor
        if video.ndim != 5 or video.shape[1] != 3 or any(side % factor for side in video.shape[-2:]):
            raise InputError(
                f"CausalVAEModel.encode: expected (B, 3, F, H, W) with H and W divisible by {factor}, "
                f"got {tuple(video.shape)}"
            )
        plan = TilePlan(
            self.tile_sample_min_size, self.tile_latent_min_size, self.tile_sample_min_size_t, self.tile_overlap_factor
        )
        if self.use_tiling and plan.needs_tiles(video) and min(map(plan.narrowest, video.shape[-2:])) < factor:
            raise InputError(
                f"CausalVAEModel.encode: expected tiles of at least {factor} pixels, got a narrower edge from "
                f"tiles of {plan.size_in} every {plan.step} on {tuple(video.shape[-2:])}; choose tile size and overlap "
                f"so that the step is a multiple of {factor}"
            )
        return DiagonalGaussian(self._encode_each(video, plan, given))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, 4, T, h, w) -> pixels (B, 3, F, 8h, 8w), not clamped.

        Raises:
            InputError: `latents` has not five axes, or another number of channels.
        """
        return torch.cat([torch.cat(list(self.decode_chunks(sample)), dim=2) for sample in latents.split(1)])

    def decode_chunks(self, latents: Tensor) -> Iterator[Tensor]:
        """`decode` of one clip, (1, 4, T, h, w), that gives its frames in order: with tiles in chunks of time."""
        if latents.ndim != 5 or latents.shape[1] != self.config.embed_dim:
            raise InputError(
                f"CausalVAEModel.decode: expected (B, {self.config.embed_dim}, T, h, w), got {tuple(latents.shape)}"
            )
        plan = TilePlan(
            self.tile_latent_min_size, self.tile_sample_min_size, self.tile_latent_min_size_t, self.tile_overlap_factor
        )
        latents = latents.to(self.dtype)
        if self.use_tiling and plan.needs_tiles(latents):
            yield from tiled_chunks(self._recomputed(self._decode_tile), latents, plan)
        else:
            yield self._decode_tile(latents)

    def _encode_each(self, video: Tensor, plan: TilePlan, given: Collection[int] | None) -> Tensor:
        samples = video.to(self.dtype).split(1)
        if not (self.use_tiling and plan.needs_tiles(video)):
            return torch.cat([self._encode_tile(sample) for sample in samples])
        process = self._recomputed(partial(self._encode_tile, recompute_blocks=False))
        known = None if given is None else partial(self._grey_chunk, video, plan, given)
        return torch.cat([run_tiled(process, sample, plan, known) for sample in samples])

    def _grey_chunk(self, video: Tensor, plan: TilePlan, given: Collection[int], start: int, end: int) -> Tensor | None:
        """The moments of frames start..end - 1 if none of them is given, else None."""
        frames, height, width = video.shape[-3:]
        weights = [*self.encoder.parameters(), *(self.quant_conv.parameters() if self.config.use_quant_layer else ())]
        trains = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
        if trains or any(start <= index % frames < end for index in given):
            return None

        def encode() -> Tensor:
            grey = torch.zeros(1, 3, end - start, height, width, dtype=self.dtype, device=self.device)
            return run_chunk(partial(self._encode_tile, recompute_blocks=False), grey, plan)

        return self._grey_chunks.chunk((end - start, height, width, plan), weights, encode)

    def _recomputed(self, process: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        if not (self.encoder.gradient_checkpointing and torch.is_grad_enabled()):
            return process
        return lambda tile: checkpoint(process, tile, use_reentrant=False, preserve_rng_state=False)

    def _apply(self, *arguments: Any, **options: Any) -> Self:
        """Called by torch for every conversion and move of the weights."""
        self._grey_chunks.clear()
        return super()._apply(*arguments, **options)

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        self._grey_chunks.clear()
        return super().load_state_dict(*arguments, **options)

    def _encode_tile(self, pixels: Tensor, *, recompute_blocks: bool = True) -> Tensor:
        moments = self.encoder(pixels, recompute_blocks=recompute_blocks)
        return self.quant_conv(moments) if self.config.use_quant_layer else moments

    def _decode_tile(self, latents: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(latents) if self.config.use_quant_layer else latents)
