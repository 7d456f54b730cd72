"""The agents of DINO, CLIP and the aesthetic score: weights, refusals, batches, settings and versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mora_env_vbench.__main__ import KINDS
from mora_env_vbench.clip.options import AestheticOptions, ClipOptions
from mora_env_vbench.clip.tiny import tiny_aesthetic, tiny_clip
from mora_env_vbench.dino.options import DinoOptions
from mora_env_vbench.dino.tiny import tiny_dino
from mora_env_vbench.published_files import AMT, CLIP_B, DINO, FILES
from mora_env_vbench.weights.errors import WeightsRefused
from mora_runtime.errors import BadArgument
from tiny_agents import built, clip, measured, tiny_agent

DIMENSIONS = [
    ("dino", "subject_consistency", ""),
    ("clip", "background_consistency", ""),
    ("clip", "appearance_style", "oil painting"),
    ("aesthetic", "aesthetic_quality", ""),
]
MAKERS = {"dino": tiny_dino, "clip": tiny_clip, "aesthetic": tiny_aesthetic}


@pytest.mark.parametrize(("kind", "dimension", "words"), DIMENSIONS)
def test_the_score_does_not_depend_on_the_number_of_frames_at_once(
    kind: str, dimension: str, words: str, tmp_path: Path
) -> None:
    frames, options = clip(7), MAKERS[kind](tmp_path)
    together, apart = (
        built(kind, {**options, "frames_at_once": size}).measure(dimension, frames, 8.0, "", words) for size in (16, 3)
    )
    assert together["score"] == pytest.approx(apart["score"], abs=1e-6)
    assert together["weight"] == apart["weight"]


@pytest.mark.parametrize(("kind", "dimension", "words"), DIMENSIONS)
def test_a_video_of_one_frame_is_refused_where_frames_are_compared(kind: str, dimension: str, words: str) -> None:
    agent = tiny_agent(kind)
    if dimension.endswith("consistency"):
        with pytest.raises(BadArgument, match=f"{dimension}: expected a video of at least 2 frames, got 1"):
            agent.measure(dimension, clip(1), 8.0, "", words)
    else:
        assert agent.measure(dimension, clip(1), 8.0, "", words)["score"]


@pytest.mark.parametrize(("kind", "dimension", "words"), DIMENSIONS)
def test_tall_and_small_videos_have_a_score(kind: str, dimension: str, words: str) -> None:
    assert -1 < tiny_agent(kind).measure(dimension, clip(3, 96, 48), 8.0, "", words)["score"] < 1


def test_a_still_picture_is_consistent() -> None:
    still = clip(1).expand(4, -1, -1, -1)
    assert measured("dino", "subject_consistency", still)["score"] == pytest.approx(1.0, abs=1e-6)
    assert measured("clip", "background_consistency", still)["score"] == pytest.approx(1.0, abs=1e-6)


def test_the_weights_of_videos_are_pairs_frames_or_one() -> None:
    frames = clip(5)
    weights = [
        tiny_agent(kind).measure(dimension, frames, 8.0, "", words)["weight"] for kind, dimension, words in DIMENSIONS
    ]
    assert weights == [4.0, 4.0, 5.0, 1.0]


@pytest.mark.parametrize("words", ["", "  "])
def test_appearance_style_without_words_is_refused(words: str) -> None:
    with pytest.raises(BadArgument, match="expected style words"):
        tiny_agent("clip").measure("appearance_style", clip(2), 8.0, "a prompt", words)


def test_another_style_has_another_score() -> None:
    scores = [
        tiny_agent("clip").measure("appearance_style", clip(2), 8.0, "", words)["score"]
        for words in ("oil painting", "watercolor painting")
    ]
    assert scores[0] != scores[1]


def test_a_network_that_answers_nan_gives_no_score(tmp_path: Path) -> None:
    agent = built("dino", tiny_dino(tmp_path))
    agent._network.norm.weight.data.fill_(float("nan"))
    with pytest.raises(BadArgument, match="subject_consistency: expected finite numbers"):
        agent.measure("subject_consistency", clip(3), 8.0, "", "")


def test_features_are_those_that_the_score_is_computed_from() -> None:
    frames = clip(3)
    features = tiny_agent("dino").features(frames)["features"]
    first = torch.nn.functional.cosine_similarity(features[0], features[1], dim=0)
    pairs = measured("dino", "subject_consistency", frames)["pairs"]
    assert float(pairs[0]) == pytest.approx(float(first), abs=1e-6)
    assert tiny_agent("clip").text_features("a cat")["features"].shape == (32,)


def test_half_precision_is_near_and_has_its_own_version(tmp_path: Path) -> None:
    options = tiny_clip(tmp_path)
    full, half = (built("clip", {**options, "clip_dtype": dtype}) for dtype in ("float32", "float16"))
    scores = [each.measure("background_consistency", clip(4), 8.0, "", "")["score"] for each in (full, half)]
    assert 0 < abs(scores[0] - scores[1]) < 1e-3
    versions = [each.describe()["versions"] for each in (full, half)]
    assert all(one != other for one, other in zip(*versions, strict=True))


def test_other_weights_have_another_version(tmp_path: Path) -> None:
    options = tiny_dino(tmp_path)
    before = built("dino", options).describe()["versions"]
    path = tmp_path / DINO.name
    state = torch.load(path, weights_only=True)
    state["norm.bias"] += 1
    torch.save(state, path)
    assert built("dino", options).describe()["versions"] != before


@pytest.mark.parametrize("options", [DinoOptions, ClipOptions, AestheticOptions])
def test_missing_weights_are_one_line_that_says_what_to_place_where(options: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsRefused) as refused:
        options(weights=str(tmp_path)).components()
    told = str(refused.value)
    assert "\n" not in told
    for part in (str(tmp_path), "expected a file", "https://", "MB", "licence"):
        assert part in told


@pytest.mark.parametrize("place", ["flat", "as VBench", "the file"])
def test_weights_are_found_in_a_folder_in_vbenchs_cache_and_by_name(place: str, tmp_path: Path) -> None:
    folder = tmp_path / CLIP_B.folder if place == "as VBench" else tmp_path
    folder.mkdir(exist_ok=True)
    path = folder / CLIP_B.name
    path.touch()
    assert CLIP_B.find(str(path if place == "the file" else tmp_path)) == path


def test_what_the_hub_has_is_a_source_until_it_is_there(tmp_path: Path) -> None:
    options = KINDS["amt"].options
    (source,) = options(weights=AMT.hub).weights_sources()
    assert (source.name, source.files) == (AMT.hub, (AMT.name,))
    (tmp_path / AMT.name).touch()
    assert options(weights=str(tmp_path)).weights_sources() == []


def test_a_folder_without_a_file_of_the_hub_is_refused_and_is_no_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    options = KINDS["amt"].options(weights="models/vbench")
    assert options.weights_sources() == []
    with pytest.raises(WeightsRefused, match=r"or name `lalala125/AMT` instead and run `\./mora models fetch`"):
        options.components()


def test_every_file_has_a_licence_and_an_address() -> None:
    assert all(file.licence and file.address.startswith("https://") and file.nbytes for file in FILES)
    assert [file.name for file in FILES if not file.is_commercial] == [AMT.name]
    assert AMT.notes() == ["amt-s.pth: licence CC BY-NC 4.0; it forbids commercial use"]


def test_the_page_lists_every_file_with_its_folder_and_its_licence() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for file in FILES:
        (row,) = (row for row in rows if row.startswith(f"| `{file.name}` |"))
        assert f"`{file.folder}/`" in row
        assert file.licence in row
        assert file.hub is None or f"Hub: {file.hub}" in row
