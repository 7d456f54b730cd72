"""The ten criteria for ranking a set of candidates; a random one is used for each set (paper, 4.2 and A.7).

The wording is ours, not the paper's. `measures` names the measures of `measures.py` that are relevant to a criterion:
the measured judge weights them 1.5 times. A criterion without measures needs a model of language and pictures; the
measured judge abstains from it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Criterion:
    """One aspect of quality, as a question to a judge."""

    title: str
    question: str
    measures: tuple[str, ...] = ()
    is_about_prompt: bool = False


CRITERIA = {
    "prompt_alignment": Criterion(
        "agreement with the prompt",
        "Which video shows most completely what the prompt asks for: its subjects, their number, their actions, the "
        "place, the style and the movement of the camera?",
        is_about_prompt=True,
    ),
    "subject_consistency": Criterion(
        "consistency of the subject",
        "In which video does the main subject keep its shape, colours and identity best from the first frame to the "
        "last?",
        ("coherence", "steadiness"),
    ),
    "background_consistency": Criterion(
        "consistency of the background",
        "In which video does the background stay the same place throughout, without parts that appear, vanish or melt?",
        ("coherence", "steadiness"),
    ),
    "motion_smoothness": Criterion(
        "smoothness of motion",
        "Which video moves most smoothly, without jumps, stutter or repeated frames?",
        ("coherence", "order", "liveliness"),
    ),
    "motion_amount": Criterion(
        "amount of motion",
        "Which video shows the most purposeful motion? A still picture, or one that only shakes, ranks last.",
        ("liveliness",),
    ),
    "flicker": Criterion(
        "absence of flicker",
        "Which video is freest of flicker, of brightness that pumps and of noise that crawls?",
        ("steadiness", "coherence"),
    ),
    "imaging_quality": Criterion(
        "imaging quality",
        "Which video has the clearest frames: sharp, well exposed, free of noise, blur and compression marks?",
        ("detail", "cleanness"),
    ),
    "aesthetics": Criterion(
        "beauty",
        "Which video would a photographer like best for its composition, light and harmony of colours?",
        ("colour", "detail"),
    ),
    "physical_plausibility": Criterion(
        "plausibility",
        "In which video do things behave most as they would in the world: gravity, contact, shadows, anatomy?",
    ),
    "style_consistency": Criterion(
        "unity of style",
        "Which video keeps one style, palette and mood from beginning to end: those that the prompt names, if any?",
        ("colour", "steadiness"),
    ),
}
