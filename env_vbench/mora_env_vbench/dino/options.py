"""Options of DINO's metric. Checking them imports no model library."""

from __future__ import annotations

from mora_env_vbench.metric_options import MetricOptions
from mora_env_vbench.published_files import DINO, PublishedFile


class DinoOptions(MetricOptions):
    """Options of DINO (`kind: dino`): subject consistency."""

    def published(self) -> list[tuple[str, str, PublishedFile]]:
        """DINO ViT-B/16."""
        return [("weights", self.weights, DINO)]
