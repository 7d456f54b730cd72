"""Options of MUSIQ's metric. Checking them imports no model library."""

from __future__ import annotations

from typing import Literal

from mora_env_vbench.metric_options import MetricOptions
from mora_env_vbench.published_files import MUSIQ, PublishedFile

ImagingMode = Literal["longer", "shorter", "shorter_centercrop", "None"]


class MusiqOptions(MetricOptions):
    """Options of MUSIQ (`kind: musiq`): imaging quality."""

    # Which side of a frame is made 512 if it is longer: VBench's scores are of `longer`. `shorter_centercrop` also cuts
    # out the middle; `None` changes no frame.
    mode: ImagingMode = "longer"

    def published(self) -> list[tuple[str, str, PublishedFile]]:
        """MUSIQ, trained on SPAQ."""
        return [("weights", self.weights, MUSIQ)]
