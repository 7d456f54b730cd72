"""Checkpoint files: every published format gives the same network, and none of them runs code."""

from __future__ import annotations

import copy
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from mora_env_vbench.clip.network import Clip, load_clip, load_clip_vision
from mora_env_vbench.clip.sizes import TextSizes, VisionSizes
from mora_env_vbench.dino.network import Dino
from mora_env_vbench.dino.sizes import DinoSizes
from mora_env_vbench.weights.checkpoint import open_checkpoint
from mora_env_vbench.weights.errors import WeightsRefused
from mora_env_vbench.weights.loading import load_network
from mora_env_vbench.weights.made_file import shapes_of
from mora_env_vbench.weights.recipe import Recipe
from safetensors.torch import save_file
from torch import Tensor, nn

CPU = torch.device("cpu")


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.norm(self.first(x))
        return found


SMALL = Recipe(seed=3).made(shapes_of(Small))


def loaded(path: Path, **options: Any) -> dict[str, Tensor]:
    return load_network(path, lambda shapes: Small(), **options).state_dict()


def assert_is_small(found: dict[str, Tensor]) -> None:
    assert found.keys() == SMALL.keys()
    assert all(torch.equal(found[name], SMALL[name]) for name in SMALL)


def test_torchs_format_is_read(tmp_path: Path) -> None:
    torch.save(SMALL, tmp_path / "a.pth")
    assert_is_small(loaded(tmp_path / "a.pth"))


def test_torchs_older_format_is_read(tmp_path: Path) -> None:
    torch.save({"model": SMALL, "epoch": 3}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(tmp_path / "a.pth")
    assert_is_small(loaded(tmp_path / "a.pth", within="model."))


def test_safetensors_are_read_without_what_is_around_the_weights_in_the_published_file(tmp_path: Path) -> None:
    save_file(SMALL, tmp_path / "a.safetensors")
    assert_is_small(loaded(tmp_path / "a.safetensors", within="state_dict."))


def test_weights_next_to_settings_and_numbers_of_numpy_are_read(tmp_path: Path) -> None:
    import argparse
    from collections import OrderedDict, defaultdict

    import numpy

    around = {"state_dict": OrderedDict(SMALL), "loss": numpy.float64(0.5), "args": argparse.Namespace(lr=1e-4),
              "history": defaultdict(list, {"psnr": [1.0, 2.0]}), "array": numpy.ones(3)}  # fmt: skip
    torch.save(around, tmp_path / "a.pth")
    assert_is_small(loaded(tmp_path / "a.pth", within="state_dict."))


def test_views_and_shared_storages_are_read_as_they_were(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4)
    torch.save({"a": base, "t": base.T, "row": base[1], "part": base[1:, 1:3]}, tmp_path / "a.pth")
    with open_checkpoint(tmp_path / "a.pth") as file:
        assert torch.equal(file["t"], base.T)
        assert torch.equal(file["row"], base[1])
        assert torch.equal(file["part"], base[1:, 1:3])
        assert file.shape_of("part") == (2, 2)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Clip]:
    """A TorchScript archive in float16 with the attributes that the published ones have, and its network."""
    network = Clip(VisionSizes(28, 14, 64, 1, 16), TextSizes(8, 50, 64, 1, 16))
    network.load_state_dict(Recipe(seed=9, half=True).made(shapes_of(lambda: network)))
    network = network.eval().requires_grad_(False)
    path = tmp_path_factory.mktemp("archive") / "ViT-B-32.pt"
    published = copy.deepcopy(network)
    for name in ("input_resolution", "context_length", "vocab_size"):
        published.register_buffer(name, torch.tensor(7))
    published.visual.register_buffer("input_resolution", torch.tensor(28))
    published.transformer.resblocks[0].attn_mask = torch.zeros(8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace_module(published, {"encode": (torch.tensor([[1, 2, 49, 0, 0, 0, 0, 0]]),)})
        torch.jit.save(traced.half(), path)
    return path, network


def test_a_torchscript_archive_gives_its_network_without_running_its_code(
    archive: tuple[Path, Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, network = archive
    for name in ("load", "script", "trace"):
        monkeypatch.setattr(torch.jit, name, None)
    pictures, tokens = torch.randn(2, 3, 28, 28), torch.tensor([[1, 2, 49, 0, 0, 0, 0, 0]])
    with torch.inference_mode():
        found, vision = load_clip(path, "float32", CPU), load_clip_vision(path, "float32", CPU)
        assert torch.equal(found.visual(pictures), network.visual(pictures))
        assert torch.equal(vision(pictures), network.visual(pictures))
        assert torch.equal(found.encode(tokens), network.encode(tokens))
    assert float(found.logit_scale) == 4.60546875  # ln 100 in half precision


def test_half_precision_keeps_the_norms_in_float32(archive: tuple[Path, Clip]) -> None:
    path, network = archive
    pictures = torch.randn(2, 3, 28, 28)
    with torch.inference_mode():
        found = load_clip(path, "float16", CPU)
        features, expected = found.visual(pictures), network.visual(pictures)
    assert features.dtype == torch.float16
    assert found.visual.ln_pre.weight.dtype == torch.float32
    assert 0 < float((features.float() - expected).abs().max()) < 0.02 * float(expected.abs().max())


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, words: str) -> None:
        self._words = words

    def __reduce__(self) -> Any:
        return os.system, (self._words,)


def write_archive(path: Path, pickled: bytes, *, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/version", b"3\n")


@pytest.mark.parametrize("where", ["archive", "older"])
def test_a_pickle_that_runs_a_command_is_refused_and_runs_nothing(tmp_path: Path, where: str) -> None:
    sign = tmp_path / "sign"
    content = {**SMALL, "x": Command(f"touch {sign}")}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=where == "archive")
    with pytest.raises(WeightsRefused, match=r"a\.pth: expected a file of weights that holds only tensors") as refused:
        loaded(tmp_path / "a.pth")
    assert "\n" not in str(refused.value)
    assert not sign.exists()


@pytest.mark.parametrize(
    "pickled",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cbuiltins\n__import__\n(S'os'\ntR.",
        b"ctorch\nload\n(S'x'\ntR.",
        b"ctorch._utils\n_rebuild_device_tensor_from_numpy\n)R.",
        b"c__torch__.a\nB\n)\x81S'not attributes'\nb.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(N(S'__new__'\nNdtb.",  # sets an attribute of the class itself
        b"(S'storage'\nS'FloatStorage'\nS'../../etc/passwd'\nS'cpu'\nI4\ntQ.",
        b"\x80\x02]q\x00h\x00a.",
        b"",
        b"\x80\x05garbage",
        pickle.dumps({"a": 1})[:-1],
    ],
)
def test_a_pickle_with_anything_else_is_refused_in_one_line(tmp_path: Path, pickled: bytes) -> None:
    write_archive(tmp_path / "a.pth", pickled)
    with pytest.raises(WeightsRefused) as refused:
        loaded(tmp_path / "a.pth")
    assert str(tmp_path / "a.pth") in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    write_archive(tmp_path / "a.pth", pickle.dumps({}) + b"\0" * 1_000_000, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsRefused, match="not compressed"):
        loaded(tmp_path / "a.pth")


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(4)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as file:
        entries = {entry.filename: file.read(entry) for entry in file.infolist()}
    (name,) = (name for name in entries if name.endswith("/data/0"))
    with zipfile.ZipFile(tmp_path / "b.pth", "w") as file:
        for entry, content in entries.items():
            file.writestr(entry, content[:8] if entry == name else content)
    with open_checkpoint(tmp_path / "b.pth") as found, pytest.raises(WeightsRefused, match="its storage has fewer"):
        found["a"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"first.weight": None}, "it lacks `first.weight`"),
        ({"second.weight": torch.zeros(2)}, "it also has `second.weight`"),
        ({"first.weight": torch.zeros(4, 5)}, r"`first.weight` should be \(4, 3\), is \(4, 5\)"),
        ({"first.bias": torch.tensor([0.0, 1.0, float("nan"), 0.0])}, "`first.bias` has numbers that are not finite"),
    ],
)
def test_weights_of_another_layout_are_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    changed = {name: tensor for name, tensor in {**SMALL, **changes}.items() if tensor is not None}
    torch.save(changed, tmp_path / "a.pth")
    with pytest.raises(WeightsRefused, match=told):
        loaded(tmp_path / "a.pth")


def test_the_file_of_another_network_is_refused_in_one_line(tmp_path: Path) -> None:
    torch.save(SMALL, tmp_path / "dino.pth")
    with pytest.raises(WeightsRefused, match="another layout") as refused:
        load_network(tmp_path / "dino.pth", Dino.of_shapes)
    assert "\n" not in str(refused.value)


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsRefused, match="no such file"):
        loaded(tmp_path / "a.pth")


def test_the_sizes_follow_from_the_file(tmp_path: Path) -> None:
    sizes = DinoSizes(patch=8, grid=6, width=128, num_blocks=3, num_heads=2)
    torch.save(Recipe(seed=1).made(shapes_of(lambda: Dino(sizes))), tmp_path / "dino.pth")
    assert load_network(tmp_path / "dino.pth", Dino.of_shapes).sizes == sizes


def test_a_loaded_network_keeps_no_gradients(tmp_path: Path) -> None:
    torch.save(SMALL, tmp_path / "a.pth")
    network = load_network(tmp_path / "a.pth", lambda shapes: Small())
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
