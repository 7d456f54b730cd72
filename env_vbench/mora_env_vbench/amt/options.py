"""Options of AMT's metric. Checking them imports no model library."""

from __future__ import annotations

from mora_env_vbench.metric_options import MetricOptions
from mora_env_vbench.published_files import AMT, PublishedFile


class AmtOptions(MetricOptions):
    """Options of AMT-S (`kind: amt`): motion smoothness. Its weights are not for commercial use."""

    def published(self) -> list[tuple[str, str, PublishedFile]]:
        """AMT-S."""
        return [("weights", self.weights, AMT)]
