"""The runner for reference tensors: what it prints and returns, on files made here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mora_env_svd.seine.models import SeineUNet
from mora_env_svd.seine.reference_check import main
from mora_env_svd.seine.tiny import UNET_CONFIG
from safetensors.torch import save_file
from torch import Tensor


def write(folder: Path, name: str, meta: dict[str, Any], cases: dict[str, dict[str, dict[str, Tensor]]]) -> None:
    """Write a reference file whose cases have the given inputs and outputs."""
    tensors = {
        f"{case}/{part}/{key}": value.detach().contiguous()
        for case, parts in cases.items()
        for part, values in parts.items()
        for key, value in values.items()
    }
    entries = [{"name": case, "args": meta.get("args", {})} for case in cases]
    (folder / f"{name}.json").write_text(json.dumps({"name": name, "cases": entries, **meta}))
    save_file(tensors, folder / f"{name}.data.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A guidance file, a UNet file, and a file of a kind that is not SEINE's."""
    output = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    guided = output[1:] + 3.0 * (output[:1] - output[1:])
    guidance = {"g": {"inputs": {"model_output": output}, "outputs": {"guided": guided}}}
    write(tmp_path, "seine_guidance", {"kind": "seine_diffusion", "args": {"scale": 3.0}}, guidance)
    torch.manual_seed(0)
    model = SeineUNet.from_config(UNET_CONFIG)
    sample, text = torch.randn(1, 9, 2, 4, 4), torch.randn(1, 5, 32)
    inputs = {"sample": sample, "encoder_hidden_states": text, "timestep": torch.tensor([7])}
    with torch.no_grad():
        outputs = {"output": model(sample, inputs["timestep"], text)}
    inputs["probe"] = torch.ones_like(outputs["output"])
    save_file(model.state_dict(), tmp_path / "heldout_unet.weights.safetensors")
    meta = {"kind": "seine_unet", "config": UNET_CONFIG, "weights": "heldout_unet.weights.safetensors (float32)"}
    write(tmp_path, "heldout_unet", meta, {"c": {"inputs": inputs, "outputs": outputs}})
    write(tmp_path, "other", {"kind": "dit"}, {"x": {"outputs": {"y": torch.zeros(1)}}})
    return tmp_path


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def change(folder: Path, name: str, key: str, by: float) -> None:
    from safetensors.torch import load_file

    path = folder / f"{name}.data.safetensors"
    tensors = load_file(path)
    tensors[key] = tensors[key] + by
    save_file(tensors, path)


def test_equal_values_pass(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder)]) == 0
    found = told(capsys)
    assert (found["passed"], found["num_values"]) == (True, 2)
    assert set(found["files"]) == {"seine_guidance", "heldout_unet"}
    value = found["files"]["heldout_unet"]["c"]["output"]
    assert value["ok"]
    assert value["difference"] <= value["allowed"]


def test_a_difference_beyond_the_tolerance_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, "heldout_unet", "c/outputs/output", 1e-3)
    assert main([str(folder)]) == 1
    found = told(capsys)
    assert not found["passed"]
    assert found["files"]["heldout_unet"]["c"]["output"]["difference"] == pytest.approx(1e-3, rel=1e-2)
    assert found["files"]["seine_guidance"]["g"]["guided"]["ok"]


def test_a_prefix_chooses_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, "heldout_unet", "c/outputs/output", 1e-3)
    assert main([str(folder), "--prefix", "seine_"]) == 0
    assert list(told(capsys)["files"]) == ["seine_guidance"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_fails(folder: Path, capsys: pytest.CaptureFixture[str], value: float) -> None:
    change(folder, "seine_guidance", "g/inputs/model_output", value)
    assert main([str(folder), "--prefix", "seine_"]) == 1
    printed = capsys.readouterr().out
    assert not {"NaN", "Infinity"} & set(re.findall(r"\w+", printed))
    assert json.loads(printed)["files"]["seine_guidance"]["g"]["guided"]["difference"] is None


def test_a_case_that_cannot_run_fails_and_says_why(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    meta = json.loads((folder / "heldout_unet.json").read_text())
    meta["config"]["norm_num_groups"] = 7
    (folder / "heldout_unet.json").write_text(json.dumps(meta))
    assert main([str(folder), "--prefix", "heldout"]) == 1
    assert "norm_num_groups" in told(capsys)["files"]["heldout_unet"]["c"]["error"]


def test_an_output_that_we_do_not_make_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = torch.zeros(2, 1)
    case = {"g": {"inputs": {"model_output": output}, "outputs": {"unknown": output + 1.0}}}
    write(folder, "seine_guidance", {"kind": "seine_diffusion", "args": {"scale": 3.0}}, case)
    assert main([str(folder), "--prefix", "seine_"]) == 1


@pytest.mark.parametrize("prefix", ["nothing", "other"])
def test_a_folder_without_files_of_a_known_kind_is_unusable(
    folder: Path, capsys: pytest.CaptureFixture[str], prefix: str
) -> None:
    assert main([str(folder), "--prefix", prefix]) == 2
    assert "found none" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_unusable(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "seine_guidance.json").write_text("{")
    assert main([str(folder)]) == 2
    assert "cannot be read" in capsys.readouterr().err
