"""The networks of Open-Sora-Plan v1.2: two diffusion transformers and the causal video autoencoder.

They need only torch and safetensors. Shape suffixes used throughout the package:
B batch, C channels, T latent frames, F pixel frames, H W height and width, N tokens, D model width, K head width,
L text length.
"""

from mora_env_opensora.models.errors import ConfigError, InputError, OpenSoraError, WeightsFileError
from mora_env_opensora.models.inpaint import OpenSoraInpaint
from mora_env_opensora.models.transformer import OpenSoraT2V
from mora_env_opensora.models.vae import CausalVAEModel

__all__ = [
    "CausalVAEModel",
    "ConfigError",
    "InputError",
    "OpenSoraError",
    "OpenSoraInpaint",
    "OpenSoraT2V",
    "WeightsFileError",
]
