"""CausalVAE D4 4x8x8: 8 x smaller in space, 4 x in time, causal convolutions, 4 latent channels."""

from mora_env_opensora.models.vae.model import CausalVAEModel
from mora_env_opensora.models.vae.posterior import DiagonalGaussian

__all__ = ["CausalVAEModel", "DiagonalGaussian"]
