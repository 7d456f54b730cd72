"""Totals over the dimensions of VBench. Nothing here needs torch or numpy."""

from mora_environment.vbench_totals.scales import PAPER_QUALITY
from mora_environment.vbench_totals.totals import (
    Totals,
    image_to_video_totals,
    paper_quality,
    text_to_video_totals,
)

__all__ = ["PAPER_QUALITY", "Totals", "image_to_video_totals", "paper_quality", "text_to_video_totals"]
