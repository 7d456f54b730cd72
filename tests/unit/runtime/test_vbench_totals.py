"""Totals of VBench: what each dimension adds, and what a missing one does."""

from __future__ import annotations

import pytest
from mora_environment.vbench_totals import (
    PAPER_QUALITY,
    image_to_video_totals,
    paper_quality,
    text_to_video_totals,
)
from mora_environment.vbench_totals.scales import PICTURE, PICTURE_QUALITY, QUALITY, SEMANTIC
from mora_runtime.errors import BadArgument


def test_the_papers_video_quality_is_the_plain_mean_of_six() -> None:
    assert paper_quality({name: at / 10 for at, name in enumerate(PAPER_QUALITY)}) == pytest.approx(0.25)


def test_the_papers_video_quality_is_refused_without_one_of_the_six() -> None:
    with pytest.raises(BadArgument, match="imaging_quality"):
        paper_quality({name: 0.5 for name in PAPER_QUALITY if name != "imaging_quality"})


def test_the_ends_of_every_scale_give_0_and_1() -> None:
    for end, expected in (("least", 0.0), ("most", 1.0)):
        overall = {name: getattr(scale, end) for name, scale in {**QUALITY, **SEMANTIC, **PICTURE}.items()}
        for totals in (text_to_video_totals(overall), image_to_video_totals(overall)):
            assert (totals.quality, totals.other, totals.total) == pytest.approx((expected,) * 3)
            assert not totals.missing


def test_dynamic_degree_counts_half() -> None:
    overall = {name: scale.least for name, scale in QUALITY.items()}
    assert text_to_video_totals({**overall, "dynamic_degree": 1.0}).quality == pytest.approx(0.5 / 6.5)
    assert text_to_video_totals({**overall, "imaging_quality": 1.0}).quality == pytest.approx(1 / 6.5)


def test_a_missing_dimension_counts_as_0_and_is_named() -> None:
    overall = {name: scale.most for name, scale in {**PICTURE, **PICTURE_QUALITY}.items()}
    del overall["i2v_subject"]
    totals = image_to_video_totals(overall)
    assert totals.missing == ("i2v_subject",)
    assert totals.other == pytest.approx((0.1 + 1 + (0 - 0.1462) / (1 - 0.1462)) / 2.1)
