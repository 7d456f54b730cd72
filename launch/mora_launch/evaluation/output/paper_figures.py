"""Figures of the paper's tables 1, 2 and 5, arXiv 2403.13248 v3, as printed there.

They were copied from a text conversion of the paper. In tables 1 and 5 every row has a figure for each column. In the
second half of table 2 some rows have none, and the conversion keeps only the order of the figures: which row they
belong to was inferred from that order and agrees with the figures that the paper's text repeats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Row = tuple[str, tuple[float | None, ...]]


@dataclass(frozen=True)
class Column:
    """A column: its title in the paper, and the dimension or total of a summary that belongs into it."""

    title: str
    key: str


@dataclass(frozen=True)
class PaperTable:
    """One table, or the part of one about a task.

    Attributes:
        task: whose videos it measures.
    """

    title: str
    task: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""


_OBJECT = Column("Object Consistency", "subject_consistency")
_BACKGROUND = Column("Background Consistency", "background_consistency")
_MOTION = Column("Motion Smoothness", "motion_smoothness")
_AESTHETIC = Column("Aesthetic Quality", "aesthetic_quality")
_DYNAMIC = Column("Dynamic Degree", "dynamic_degree")
_IMAGING = Column("Imaging Quality", "imaging_quality")
_TEMPORAL = Column("Temporal Style", "temporal_style")
_APPEARANCE = Column("Appearance Style", "appearance_style")
_LENGTH = Column("Video Length (s)", "length_s")
_VIDEO_TI = Column("VideoTI", "video_ti")
_TCON = Column("TCON", "tcon")
_TMEAN = Column("Tmean", "tmean")
_QUALITY = Column("Video Quality", "video_quality")

_TEXT_TO_VIDEO = (_QUALITY, _OBJECT, _BACKGROUND, _MOTION, _AESTHETIC, _DYNAMIC, _IMAGING, _TEMPORAL)
_INFERRED = "The rows of the paper's figures are inferred from their order where the paper leaves cells empty."

TABLES = (
    PaperTable(
        "Table 1: text-to-video",
        "text-to-video",
        (*_TEXT_TO_VIDEO, _LENGTH),
        (
            ("Sora", (0.797, 0.95, 0.96, 1.00, 0.60, 0.69, 0.58, 0.35, 60)),
            ("VideoCrafter1", (0.778, 0.95, 0.98, 0.95, 0.63, 0.55, 0.61, 0.26, 2)),
            ("ModelScope", (0.758, 0.89, 0.95, 0.95, 0.52, 0.66, 0.58, 0.25, 2)),
            ("Show-1", (0.751, 0.95, 0.98, 0.98, 0.57, 0.44, 0.59, 0.25, 3)),
            ("Pika", (0.741, 0.96, 0.96, 0.99, 0.63, 0.37, 0.54, 0.24, 3)),
            ("LaVie-Interpolation", (0.741, 0.92, 0.97, 0.97, 0.54, 0.46, 0.59, 0.26, 10)),
            ("Gen-2", (0.733, 0.97, 0.97, 0.99, 0.66, 0.18, 0.63, 0.24, 4)),
            ("LaVie", (0.746, 0.91, 0.97, 0.96, 0.54, 0.49, 0.61, 0.26, 3)),
            ("CogVideo", (0.673, 0.92, 0.95, 0.96, 0.38, 0.42, 0.41, 0.07, 4)),
            ("Mora, type I", (0.782, 0.96, 0.97, 0.99, 0.60, 0.60, 0.57, 0.26, 12)),
            ("Mora, type II", (0.810, 0.94, 0.95, 0.99, 0.57, 0.80, 0.61, 0.26, 12)),
            ("Mora, type III", (0.795, 0.94, 0.93, 0.99, 0.55, 0.80, 0.56, 0.26, 12)),
            ("Mora (SVD), not tuned", (0.792, 0.95, 0.95, 0.99, 0.57, 0.70, 0.59, 0.26, 12)),
            ("Mora (Open-Sora-Plan), not tuned", (0.767, 0.94, 0.95, 0.99, 0.61, 0.43, 0.68, 0.26, 12)),
            ("Mora (Open-Sora-Plan)", (0.800, 0.98, 0.97, 0.99, 0.66, 0.50, 0.70, 0.31, 12)),
        ),
    ),
    PaperTable(
        "Table 2: image-to-video",
        "image-to-video",
        (_VIDEO_TI, _MOTION, _DYNAMIC, _IMAGING),
        (
            ("Sora", (0.90, 0.99, 0.75, 0.63)),
            ("SVD", (0.88, 0.97, 0.75, 0.58)),
            ("SVD-1.1", (0.88, 0.97, 0.75, 0.59)),
            ("Open-Sora-Plan", (0.89, 0.98, 1.00, 0.65)),
            ("Mora (SVD), not tuned", (0.88, 0.97, 0.75, 0.60)),
            ("Mora (Open-Sora-Plan), not tuned", (0.88, 0.97, 1.00, 0.66)),
            ("Mora (Open-Sora-Plan)", (0.90, 0.98, 1.00, 0.67)),
        ),
    ),
    PaperTable(
        "Table 2: extend videos",
        "extend",
        (_TCON, _IMAGING, _TEMPORAL),
        (
            ("Sora", (0.99, 0.43, 0.24)),
            ("SVD", (0.94, 0.37, 0.22)),
            ("SVD-1.1", (0.94, 0.37, 0.22)),
            ("Open-Sora-Plan", (0.96, 0.45, 0.22)),
            ("Mora (SVD), not tuned", (0.94, 0.39, 0.22)),
            ("Mora (Open-Sora-Plan), not tuned", (0.96, 0.45, 0.22)),
            ("Mora (Open-Sora-Plan)", (0.98, 0.45, 0.23)),
        ),
    ),
    PaperTable(
        "Table 2: video-to-video editing",
        "edit",
        (_IMAGING, _TEMPORAL),
        (
            ("Sora", (0.52, 0.24)),
            ("Pika", (0.35, 0.20)),
            ("Runway-tool", (None, None)),
            ("Mora (SVD), not tuned", (0.38, 0.23)),
            ("Mora (Open-Sora-Plan), not tuned", (0.34, 0.20)),
            ("Mora (Open-Sora-Plan)", (0.52, 0.24)),
        ),
        _INFERRED,
    ),
    PaperTable(
        "Table 2: connect videos",
        "connect",
        (_IMAGING, _TMEAN),
        (
            ("Sora", (0.52, 0.64)),
            ("Pika", (None, None)),
            ("Runway-tool", (0.33, 0.22)),
            ("Mora (SVD), not tuned", (0.42, 0.45)),
            ("Mora (Open-Sora-Plan), not tuned", (0.40, 0.39)),
            ("Mora (Open-Sora-Plan)", (0.43, 0.44)),
        ),
        _INFERRED,
    ),
    PaperTable(
        "Table 2: simulate digital worlds",
        "simulate",
        (_IMAGING, _APPEARANCE),
        (
            ("Sora", (0.62, 0.23)),
            ("Pika", (0.44, 0.10)),
            ("Runway-tool", (None, None)),
            ("Mora (SVD), not tuned", (0.52, 0.23)),
            ("Mora (Open-Sora-Plan), not tuned", (0.51, 0.20)),
            ("Mora (Open-Sora-Plan)", (0.56, 0.23)),
        ),
        _INFERRED,
    ),
    PaperTable(
        "Table 5: ablation, text-to-video",
        "text-to-video",
        _TEXT_TO_VIDEO,
        (
            ("Mora (Open-Sora-Plan)", (0.800, 0.98, 0.97, 0.99, 0.66, 0.50, 0.70, 0.31)),
            ("Mora (Open-Sora-Plan), not tuned", (0.767, 0.94, 0.95, 0.99, 0.61, 0.43, 0.68, 0.26)),
            ("Mora without human in the loop", (0.785, 0.98, 0.96, 0.95, 0.63, 0.50, 0.69, 0.31)),
            ("Mora without self-modulation", (0.776, 0.96, 0.95, 0.95, 0.62, 0.51, 0.67, 0.27)),
            ("Mora with random initial modulation", (0.797, 0.98, 0.96, 0.99, 0.66, 0.50, 0.69, 0.29)),
        ),
    ),
)
# What a run with a mode of modulation is in table 5.
VARIANTS: Mapping[str, str] = {"none": "without self-modulation", "random_init": "random initial modulation"}
