"""The runner of reference values: what it compares, what it writes, and its exit codes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mora_env_vbench.goldens.__main__ import EXIT_DIFFERENT, EXIT_EQUAL, EXIT_NOTHING, main
from mora_env_vbench.goldens.comparison import Differences
from mora_env_vbench.weights.recipe import Recipe, made_clip
from safetensors.torch import save_file

CLIP = {"seed": 3, "frames": 2, "height": 16, "width": 24}


def write_recipe(folder: Path, name: str, *, error: float = 0.0) -> None:
    """A file of the kind `eval_recipe`, made by this package, with an error in one weight."""
    weights = Recipe(7).made({"a.weight": (3, 4), "a.bias": (3,)})
    weights["a.bias"][0] += error
    save_file({f"weights/outputs/{key}": value for key, value in weights.items()}, folder / f"{name}.data.safetensors")
    digest = hashlib.sha256(made_clip(**CLIP).numpy().tobytes()).hexdigest()
    cases = [
        {"name": "weights", "args": {"seed": 7}, "inputs": [], "outputs": sorted(weights)},
        {"name": "clips", "args": {}, "inputs": [], "outputs": [], "values": [{"args": CLIP, "sha256": digest}]},
    ]
    write(folder, name, {"kind": "eval_recipe", "cases": cases})


def write(folder: Path, name: str, content: dict[str, Any]) -> None:
    (folder / f"{name}.json").write_text(json.dumps({"name": name, **content}), encoding="utf-8")


def run(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    told = folder / "outcome" / "told.json"
    told.parent.mkdir(exist_ok=True)
    code = main([str(folder), "--json", str(told), *words])
    return code, json.loads(told.read_text(encoding="utf-8"))


def test_equal_values_give_0_and_every_case_by_its_name(tmp_path: Path) -> None:
    write_recipe(tmp_path, "any_name")
    assert run(tmp_path) == (
        EXIT_EQUAL,
        {"cases": {"any_name/weights": 0.0, "any_name/clips": 0.0}, "worst": 0.0, "failed": [], "left_out": []},
    )


def test_a_difference_gives_1_and_its_size(tmp_path: Path) -> None:
    write_recipe(tmp_path, "one", error=0.25)
    code, told = run(tmp_path)
    assert code == EXIT_DIFFERENT
    assert told["failed"] == ["one/weights"]
    assert told["worst"] == told["cases"]["one/weights"] == pytest.approx(0.25, abs=1e-6)


def test_a_case_that_cannot_run_is_a_failure_and_the_others_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recipe(tmp_path, "b")
    write(tmp_path, "a", {"kind": "eval_formulas", "cases": [{"name": "new", "description": "of another kind"}]})
    code, told = run(tmp_path)
    assert code == EXIT_DIFFERENT
    assert told["failed"] == ["a/new"]
    assert told["cases"]["a/new"] is None
    assert told["cases"]["b/weights"] == 0.0
    assert "a/new: ValueError: no such comparison: of another kind" in capsys.readouterr().err


def test_a_case_without_a_value_is_a_failure(tmp_path: Path) -> None:
    write(tmp_path, "a", {"kind": "eval_recipe", "cases": [{"name": "empty", "args": {"seed": 1}}]})
    code, told = run(tmp_path)
    assert (code, told["failed"]) == (EXIT_DIFFERENT, ["a/empty"])


@pytest.mark.parametrize("content", [None, {"kind": "something_else", "cases": [{"name": "x"}]}])
def test_a_folder_without_a_case_to_run_gives_2(tmp_path: Path, content: dict[str, Any] | None) -> None:
    if content is not None:
        write(tmp_path, "a", content)
    code, told = run(tmp_path)
    assert code == EXIT_NOTHING
    assert told["cases"] == {}


def test_the_prefix_chooses_files_and_whole_metrics_run_only_if_asked(tmp_path: Path) -> None:
    write_recipe(tmp_path, "h_recipe", error=1.0)
    write_recipe(tmp_path, "eval_recipe")
    whole = {"kind": "eval_metrics", "cases": [{"name": "no_dimension", "values": {"overall": 1.0}}]}
    write(tmp_path, "eval_metrics", {**whole, "weights": {}, "videos": []})
    code, told = run(tmp_path, "--prefix", "eval_")
    assert (code, told["left_out"]) == (EXIT_EQUAL, ["eval_metrics"])
    assert list(told["cases"]) == ["eval_recipe/weights", "eval_recipe/clips"]


def test_decisions_whole_numbers_and_texts_must_be_equal() -> None:
    for got, reference in ((True, False), (3, 4), ("a", "b"), ([1, 2], [1, 3]), ([1, 2], None), (0.0, True)):
        found = Differences(1e9)
        found.add(got, reference)
        assert not found.is_within, (got, reference)


def test_a_difference_is_relative_to_large_references_and_absolute_below_1() -> None:
    for got, reference, expected in ((101.0, 100.0, 0.01), (0.02, 0.01, 0.01)):
        found = Differences(0.011)
        found.add(got, reference)
        assert (found.is_within, found.largest) == (True, pytest.approx(expected))


def test_another_shape_and_nan_are_never_within() -> None:
    for got in (torch.zeros(2, 3), torch.tensor([float("nan"), 0.0])):
        found = Differences(1e9)
        found.add(got, torch.zeros(2))
        assert not found.is_within
