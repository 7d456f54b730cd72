"""Sampling around given frames: image to video, continuation and transition."""

from mora_env_opensora.pipelines.given_frames import GivenFramesPipeline
from mora_env_opensora.pipelines.sampler import LatentSampler, SamplingSettings

__all__ = ["GivenFramesPipeline", "LatentSampler", "SamplingSettings"]
