"""Upstream's `seine.pt` is converted once, whole or not at all, and never run."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mora_env_svd.errors import WeightsFileError
from mora_env_svd.seine.models import SeineUNet
from mora_env_svd.seine.tiny import UNET_CONFIG
from mora_env_svd.seine.weights import unet_folder as converter
from mora_env_svd.seine.weights.unet_folder import unet_folder
from mora_env_svd.seine.weights.weights_folder import load_unet, save_unet


@pytest.fixture
def model() -> SeineUNet:
    torch.manual_seed(0)
    return SeineUNet.from_config(UNET_CONFIG)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of converted weights, next to the cache of the Hub."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    return tmp_path / "hf" / "mora-weights"


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder as upstream publishes it, with the config of the tiny network."""

    def write(content: Any, **more: Any) -> Path:
        folder = tmp_path / "published"
        folder.mkdir(exist_ok=True)
        torch.save(content, folder / "seine.pt", **more)
        (folder / "config.json").write_text(json.dumps(UNET_CONFIG))
        return folder

    return write


def converted_folders(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.is_dir())


@pytest.mark.parametrize("is_zip", [True, False], ids=["mapped", "old format"])
def test_the_moving_average_is_loaded(model: SeineUNet, cache: Path, save: Callable[..., Path], is_zip: bool) -> None:
    source = save({"ema": model.state_dict(), "step": 7}, _use_new_zipfile_serialization=is_zip)
    folder = unet_folder(str(source))
    loaded = load_unet(folder)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert folder.parent == cache


def test_the_second_server_converts_nothing(
    model: SeineUNet, cache: Path, save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save({"ema": model.state_dict()})
    first = unet_folder(str(source))
    monkeypatch.setattr(converter, "_write", lambda *_: pytest.fail("converted again"))
    assert unet_folder(str(source)) == first


def test_another_pickle_or_config_is_another_folder(model: SeineUNet, cache: Path, save: Callable[..., Path]) -> None:
    first = unet_folder(str(save({"ema": model.state_dict()})))
    changed = {name: tensor + 1.0 for name, tensor in model.state_dict().items() if tensor.ndim}
    second = unet_folder(str(save({"ema": changed})))
    assert first != second
    assert len(converted_folders(cache)) == 2


def test_half_precision_is_stored_as_float32_with_exact_frequencies(
    model: SeineUNet, cache: Path, save: Callable[..., Path]
) -> None:
    halved = {name: tensor.half() for name, tensor in model.state_dict().items()}
    loaded = load_unet(unet_folder(str(save({"ema": halved})))).state_dict()
    for name, tensor in model.state_dict().items():
        expected = tensor if name.endswith("freqs") else tensor.half().float()
        assert torch.equal(loaded[name], expected)


class _Program:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("kind", ["program", "broken", "no ema", "no tensors", "other keys"])
def test_a_file_that_does_not_fit_is_refused_and_leaves_nothing(
    model: SeineUNet, cache: Path, save: Callable[..., Path], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    state = dict(model.state_dict())
    state["module.conv_in.weight"] = state.pop("conv_in.weight")
    contents = {
        "program": ({"ema": _Program()}, "contains a program"),
        "broken": ({}, "broken"),
        "no ema": (dict(model.state_dict()), "expected tensors under `ema`, got conv_in.weight"),
        "no tensors": ({"ema": {"a": 1}}, "expected tensors under `ema`"),
        "other keys": ({"ema": state}, "1 missing: conv_in.weight; 1 unexpected: module.conv_in.weight"),
    }
    content, told = contents[kind]
    source = save(content)
    if kind == "broken":
        (source / "seine.pt").write_bytes(pickle.dumps("x")[:3])
    with pytest.raises(WeightsFileError, match=told):
        unet_folder(str(source))
    assert not Path("ran").exists()
    assert converted_folders(cache) == []


def test_a_conversion_that_dies_is_made_again(
    model: SeineUNet, cache: Path, save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save({"ema": model.state_dict()})

    def die(path: Path, *_: Any) -> int:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(converter, "write_stream", die)
        with pytest.raises(KeyboardInterrupt):
            unet_folder(str(source))
    assert converted_folders(cache) == []
    load_unet(unet_folder(str(source)))


def test_safetensors_are_used_as_they_are(model: SeineUNet, cache: Path, tmp_path: Path) -> None:
    save_unet(model, tmp_path / "trained")
    assert unet_folder(str(tmp_path / "trained")) == tmp_path / "trained"
    assert not cache.exists()


def test_a_hub_id_is_found_in_the_cache_of_the_hub(
    model: SeineUNet, cache: Path, save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, commit = save({"ema": model.state_dict()}), "0123456789abcdef" * 2 + "01234567"
    repository = cache.parent / "hub" / "models--Vchitect--SEINE"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    source.rename(repository / "snapshots" / commit)
    load_unet(unet_folder("Vchitect/SEINE"))


def test_a_name_without_weights_is_refused(cache: Path, tmp_path: Path) -> None:
    for name in (str(tmp_path), "Vchitect/SEINE", "nothing"):
        with pytest.raises(WeightsFileError, match=r"diffusion_pytorch_model\.safetensors or seine\.pt"):
            unet_folder(name)
