"""The metrics equal VBench on the reference values: recipe, inputs, formulas, networks, layouts and whole metrics."""

from __future__ import annotations

from pathlib import Path

import pytest
import reference
from mora_env_vbench.goldens.__main__ import WHOLE, check_folder, checks_of
from mora_env_vbench.goldens.case_file import CaseFile

FILES = ("eval_recipe", "eval_prep", "eval_formulas", "eval_models", "eval_state_dicts")


def found_folder(name: str) -> Path:
    return reference.find_file(f"{name}.json").parent


@pytest.mark.parametrize("name", FILES)
def test_every_value_of_every_case_is_within_its_tolerance(name: str) -> None:
    found, _ = check_folder(found_folder(name), name)
    wrong = {case: differences.largest for case, differences in found.items() if not differences.is_within}
    assert not wrong
    assert found, "no case ran"


def test_every_case_of_the_quick_files_is_compared() -> None:
    for name in FILES:
        file = CaseFile(reference.find_file(f"{name}.json"))
        expected = file.meta["files"] if name == "eval_state_dicts" else [case["name"] for case in file.meta["cases"]]
        assert [case for case, _, _ in checks_of(file)] == list(expected)


def test_a_changed_reference_is_found(tmp_path: Path) -> None:
    path = reference.find_file("eval_formulas.json")
    for name in ("eval_formulas.json", "eval_formulas.data.safetensors"):
        (tmp_path / name).write_bytes((path.parent / name).read_bytes())
    text = (tmp_path / "eval_formulas.json").read_text(encoding="utf-8")
    assert "0.5274598933756351" in text
    (tmp_path / "eval_formulas.json").write_text(text.replace("0.5274598933756351", "0.5274698933756351"))
    found, _ = check_folder(tmp_path)
    assert [case for case, differences in found.items() if not differences.is_within] == ["eval_formulas/consistency"]


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_whole_metrics_of_published_sizes_are_within_their_tolerance() -> None:
    found, left_out = check_folder(found_folder(WHOLE), WHOLE)
    assert not left_out
    assert {case: each.largest for case, each in found.items() if not each.is_within} == {}
    assert len(found) == len(CaseFile(reference.find_file(f"{WHOLE}.json")).cases)
