"""The dimensions that can be asked for: what each needs to know of a video, and how people call it.

No formula is here: metric agents compute scores, and the overall value of every dimension is the weighted mean of its
videos' scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mora_runtime.errors import SettingsError
from mora_runtime.schema import nearest_name


@dataclass(frozen=True)
class Dimension:
    """One dimension of VBench.

    Attributes:
        title: as tables and reports name it.
        needs: what the agent needs besides frames: the prompt, the words of a style, or nothing.
        num_index: videos of one prompt in VBench's suite.
        video_scale: factor of a video's value in VBench's files; the overall value there has the scale of ours.
        is_yes_or_no: a video's value in VBench's files is true or false.
    """

    title: str
    needs: Literal["", "prompt", "words"] = ""
    num_index: int = 5
    video_scale: float = 1.0
    is_yes_or_no: bool = False


DIMENSIONS = {
    "subject_consistency": Dimension("Object Consistency"),
    "background_consistency": Dimension("Background Consistency"),
    "motion_smoothness": Dimension("Motion Smoothness"),
    "aesthetic_quality": Dimension("Aesthetic Quality"),
    "dynamic_degree": Dimension("Dynamic Degree", is_yes_or_no=True),
    "imaging_quality": Dimension("Imaging Quality", video_scale=100.0),
    "temporal_style": Dimension("Temporal Style", "prompt"),
    "appearance_style": Dimension("Appearance Style", "words"),
    "temporal_flickering": Dimension("Temporal Flickering", num_index=25),
    "overall_consistency": Dimension("Overall Consistency", "prompt"),
}
# The paper's own metrics, which compare videos with what they were made from.
PAPER = {"tcon": Dimension("TCON"), "tmean": Dimension("Tmean"), "video_ti": Dimension("VideoTI")}
KNOWN = {**DIMENSIONS, **PAPER}
FEATURES = "video_features"  # what a metric gives for them, instead of a score
QUALITY = tuple(DIMENSIONS)[:6]
EIGHT = tuple(DIMENSIONS)[:8]
SUITES = {"quality": QUALITY, "all": tuple(DIMENSIONS)}


def check_of_run(key: str, names: Sequence[str]) -> None:
    """Refuse names that are no dimensions or come twice, and dimensions that no video of a run has (ValueError)."""
    if len(set(names)) < len(names):
        raise ValueError(f"{key}: expected every dimension once, got {', '.join(names)}")
    for name in names:
        if name not in DIMENSIONS:
            raise ValueError(f"{key}: {_unknown(name)}")
        if DIMENSIONS[name].needs == "words":
            raise ValueError(
                f"{key}: {name} needs the words of a style, which only VBench's prompts have; leave it out, or measure "
                "it with `mora evaluate --generate`"
            )


def chosen_dimensions(suite: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the dimensions of a suite, or the named ones in the order of the table.

    Raises:
        SettingsError: an unknown name; the nearest one is in the text.
    """
    for name in names:
        if name not in DIMENSIONS:
            raise SettingsError(f"--dimension {_unknown(name)}")
    return tuple(name for name in DIMENSIONS if name in names) if names else SUITES[suite]


def _unknown(name: str) -> str:
    nearest = nearest_name(name, DIMENSIONS)
    hint = f"; did you mean `{nearest}`?" if nearest else ""
    return f"{name}: expected one of {', '.join(DIMENSIONS)}{hint}"
