"""Configs of the published models, for their folders on the Hub that lack one and for plans. It needs no torch."""

from __future__ import annotations

from typing import Any

SEINE = "Vchitect/SEINE"
STABLE_DIFFUSION = "CompVis/stable-diffusion-v1-4"
# Numbers of parameters, for the memory table while the weights are not on this machine.
NUM_PARAMETERS = {
    SEINE: {"unet": 909_138_500},
    STABLE_DIFFUSION: {"vae": 83_653_863, "text_encoder": 123_060_480},
}
TEXT_LENGTH = 77  # tokens
# Of Stable Diffusion 1.4's vae/config.json, what differs from the defaults of diffusers.
VAE: dict[str, Any] = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
}
