"""Options of RAFT's metrics. Checking them imports no model library."""

from __future__ import annotations

from mora_env_vbench.metric_options import MetricOptions
from mora_env_vbench.published_files import RAFT, PublishedFile


class RaftOptions(MetricOptions):
    """Options of RAFT (`kind: raft`): dynamic degree and temporal flickering."""

    # temporal_flickering refuses videos that move, as VBench's static filter leaves them out of its suite. It takes as
    # long as dynamic_degree with every frame.
    static_filter: bool = False

    def published(self) -> list[tuple[str, str, PublishedFile]]:
        """RAFT, trained on FlyingThings."""
        return [("weights", self.weights, RAFT)]
