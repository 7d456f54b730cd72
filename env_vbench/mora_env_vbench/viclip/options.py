"""Options of ViCLIP's metrics. Checking them imports no model library."""

from __future__ import annotations

from mora_env_vbench.metric_options import ClipMetricOptions
from mora_env_vbench.published_files import VICLIP, PublishedFile


class ViclipOptions(ClipMetricOptions):
    """Options of ViCLIP (`kind: viclip`): temporal style and overall consistency, and features of videos for TCON."""

    def published(self) -> list[tuple[str, str, PublishedFile]]:
        """ViCLIP-L/14."""
        return [("weights", self.weights, VICLIP)]
