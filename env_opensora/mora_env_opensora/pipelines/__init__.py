"""Sampling: text to video, and image to video, continuation and transition from given frames."""

from mora_env_opensora.pipelines.given_frames import GivenFramesPipeline
from mora_env_opensora.pipelines.sampler import LatentSampler, SamplingSettings
from mora_env_opensora.pipelines.text_to_video import TextToVideoPipeline

__all__ = ["GivenFramesPipeline", "LatentSampler", "SamplingSettings", "TextToVideoPipeline"]
