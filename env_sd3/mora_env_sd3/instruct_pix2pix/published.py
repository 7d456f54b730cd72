"""Configs and sizes of the published InstructPix2Pix, for plans on a machine that does not have it. It needs no torch.

It is Stable Diffusion 1.5 with eight input channels: the noisy latents, then the latents of the given picture.
"""

from __future__ import annotations

from typing import Any

INSTRUCT_PIX2PIX = "timbrooks/instruct-pix2pix"
# Numbers of parameters, for the memory table while the weights are not on this machine.
NUM_PARAMETERS = {
    INSTRUCT_PIX2PIX: {"unet": 859_532_484, "vae": 83_653_863, "text_encoder": 123_060_480},
}
# Of unet/config.json, what differs from the defaults of diffusers, and the sizes.
UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 8,
    "out_channels": 4,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
# Of vae/config.json, what differs from the defaults of diffusers, and the sizes.
VAE: dict[str, Any] = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}
# Of scheduler/scheduler_config.json, what its class reads. The file has no `timestep_spacing`, so the default of
# diffusers applies, `linspace`.
SCHEDULER: dict[str, Any] = {
    "_class_name": "EulerAncestralDiscreteScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "steps_offset": 1,
}
TEXT_LENGTH = 77  # tokens
