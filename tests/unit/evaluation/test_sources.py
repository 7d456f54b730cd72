"""Where videos come from, and VBench's prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mora_launch.evaluation.suite.dimensions import EIGHT, QUALITY, chosen_dimensions
from mora_launch.evaluation.suite.generation import suite_orders
from mora_launch.evaluation.suite.sources import find_videos
from mora_launch.evaluation.suite.vbench_prompts import prompts_for, vbench_prompts
from mora_runtime.errors import SettingsError


def touched(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_the_eight_dimensions_have_the_prompts_of_vbench() -> None:
    numbers = {name: len(prompts_for([name])) for name in EIGHT}
    assert numbers == {
        "subject_consistency": 72, "background_consistency": 86, "motion_smoothness": 72, "aesthetic_quality": 93,
        "dynamic_degree": 72, "imaging_quality": 93, "temporal_style": 100, "appearance_style": 90,
    }  # fmt: skip
    styled = [prompt for prompt in vbench_prompts().values() if prompt.words]
    assert {prompt.text for prompt in styled} == {prompt.text for prompt in prompts_for(["appearance_style"])}
    assert all(prompt.words in prompt.text for prompt in styled)


def test_the_suite_of_the_eight_has_five_videos_a_prompt_each_with_its_own_seed() -> None:
    orders = suite_orders(EIGHT, seed=0, limit=None)
    # 441 entries of VBench's list, of which two prompts are listed twice
    assert len(orders) == 5 * (441 - 2)
    assert len({order.file for order in orders}) == len(orders)
    assert len({order.seed for order in orders}) == len(orders)
    assert suite_orders(EIGHT, seed=0, limit=7) == orders[:7]
    assert {order.seed for order in suite_orders(EIGHT, seed=1, limit=9)}.isdisjoint(order.seed for order in orders)
    assert all(order.file == f"{order.prompt}-{order.index}.mp4" for order in orders)


def test_the_first_videos_have_some_for_each_dimension() -> None:
    few = {order.prompt for order in suite_orders(EIGHT, seed=0, limit=12)}
    assert {name for prompt in few for name in vbench_prompts()[prompt].dimensions} >= set(EIGHT)


def test_flickering_has_25_videos_a_prompt() -> None:
    assert len(suite_orders(["temporal_flickering"], seed=0, limit=None)) == 75 * 25


def test_prompts_come_from_names_or_from_a_file(tmp_path: Path) -> None:
    folder = touched(tmp_path / "v", "a red cat-0.mp4", "a red cat-10.mp4", "a red cat-9.mp4", "clip.mp4", "notes.txt")
    (tmp_path / "p.json").write_text(json.dumps({"clip.mp4": "a dog"}))
    found = find_videos([folder], QUALITY, tmp_path / "p.json", "auto")
    assert [(video.name, video.prompt) for video in found.videos] == [
        ("a red cat-0.mp4", "a red cat"), ("a red cat-9.mp4", "a red cat"), ("a red cat-10.mp4", "a red cat"),
        ("clip.mp4", "a dog"),
    ]  # fmt: skip
    assert found.prompt_set == "custom"
    assert find_videos([folder / "clip.mp4"], QUALITY, None, "auto").videos[0].prompt is None


def test_a_folder_of_vbenchs_prompts_counts_for_their_dimensions_only(tmp_path: Path) -> None:
    scene, styled = prompts_for(["background_consistency"])[0], prompts_for(["appearance_style"])[3]
    folder = touched(tmp_path / "v", f"{scene.text}-0.mp4", f"{styled.text}-1.mp4")
    found = find_videos([folder], EIGHT, None, "auto")
    assert found.prompt_set == "vbench"
    by_prompt = {video.prompt: video for video in found.videos}
    assert by_prompt[scene.text].dimensions == ("background_consistency",)
    assert by_prompt[styled.text].words == styled.words
    assert found.missing["background_consistency"] == 86 * 5 - 1
    custom = find_videos([folder], EIGHT, None, "custom")
    assert all(video.counts_for("subject_consistency") for video in custom.videos)
    assert not custom.missing


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ({"absent.mp4": "a"}, "absent.mp4 is none of the videos"),
        ({"a-0.mp4": 3}, "expected text, got 3"),
        ([1], "expected a JSON object"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_wrong_file_of_prompts_is_refused(tmp_path: Path, prompts: object, said: str) -> None:
    folder = touched(tmp_path / "v", "a-0.mp4")
    if prompts is not None:
        (tmp_path / "p.json").write_text(json.dumps(prompts))
    with pytest.raises(SettingsError, match=said):
        find_videos([folder], QUALITY, tmp_path / "p.json", "auto")


def test_wrong_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        find_videos([tmp_path / "absent"], QUALITY, None, "auto")
    with pytest.raises(SettingsError, match="has no videos"):
        find_videos([touched(tmp_path / "v", "a.txt")], QUALITY, None, "auto")
    folders = [touched(tmp_path / name, "a-0.mp4") for name in ("x", "y")]
    with pytest.raises(SettingsError, match="have one name"):
        find_videos(folders, QUALITY, None, "auto")
    with pytest.raises(SettingsError, match=r"a-0\.mp4 has no prompt of VBench"):
        find_videos(folders[:1], QUALITY, None, "vbench")


def test_the_samples_of_a_run_are_grouped_by_step_and_have_the_prompts_of_its_data(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for folder in ("samples", "data"):
        (touched(run, "config.json") / folder).mkdir()
    touched(
        run / "samples",
        "before-0.mp4",
        "before-1.mp4",
        "step-4-0.mp4",
        "after-0.mp4",
        "after-1.mp4",
        "after-0-image.png",
    )
    lines = [{"prompt": prompt, "video": "a.mp4"} for prompt in ("a cat", "a dog")]
    (run / "data" / "dataset.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = find_videos([run], QUALITY, None, "auto").videos
    assert [(video.name, video.group, video.prompt) for video in found] == [
        ("samples/before-0.mp4", "before", "a cat"), ("samples/before-1.mp4", "before", "a dog"),
        ("samples/step-4-0.mp4", "step-4", "a cat"), ("samples/after-0.mp4", "after", "a cat"),
        ("samples/after-1.mp4", "after", "a dog"),
    ]  # fmt: skip
    with pytest.raises(SettingsError, match="evaluate it alone"):
        find_videos([run, run / "samples"], QUALITY, None, "auto")


def test_an_unknown_dimension_is_refused_with_the_nearest() -> None:
    assert chosen_dimensions("all", ["dynamic_degree", "subject_consistency"]) == (
        "subject_consistency",
        "dynamic_degree",
    )
    with pytest.raises(SettingsError, match="did you mean `dynamic_degree`"):
        chosen_dimensions("all", ["dynamic_degre"])
