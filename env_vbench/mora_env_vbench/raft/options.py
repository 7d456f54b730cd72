"""Options of RAFT's metrics. Checking them imports no model library."""

from __future__ import annotations

from mora_env_vbench.metric_options import MetricOptions
from mora_env_vbench.published_files import RAFT, PublishedFile


class RaftOptions(MetricOptions):
    """Options of RAFT (`kind: raft`): dynamic degree and temporal flickering."""

    def published(self) -> list[tuple[str, str, PublishedFile]]:
        """RAFT, trained on FlyingThings."""
        return [("weights", self.weights, RAFT)]
