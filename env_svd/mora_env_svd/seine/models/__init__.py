"""SEINE's UNet: Stable Diffusion 1.4's, with attention over frames and nine input channels.

Parameter names are the published checkpoint's keys. Tensors inside are (B, channels, F, h, w). The package needs only
torch.
"""

from mora_env_svd.seine.models.config import SeineConfig
from mora_env_svd.seine.models.unet import SeineUNet

__all__ = ["SeineConfig", "SeineUNet"]
