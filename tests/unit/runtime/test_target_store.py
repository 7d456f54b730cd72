"""Targets survive on disk, by clip and by what they depend on, and memory stays bounded."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from mora_runtime.errors import BadArgument
from mora_training.clip_targets import ClipTargets
from mora_training.target_store import Target, TargetStore
from torch import Tensor

SHAPES = {"mean": (3, 4, 2, 2), "std": (3, 4, 2, 2), "first": (4, None)}
CLIP = torch.arange(2 * 8 * 8 * 3, dtype=torch.int64).reshape(2, 8, 8, 3).to(torch.uint8)


def target(value: float) -> dict[str, Tensor]:
    return {
        "mean": torch.full((3, 4, 2, 2), value), "std": torch.ones(3, 4, 2, 2), "first": torch.full((4, 5), value)
    }  # fmt: skip


def nbytes() -> int:
    return sum(tensor.nbytes for tensor in target(0.0).values())


def test_another_process_finds_what_one_stored(tmp_path: Path) -> None:
    TargetStore(SHAPES, tmp_path, "vae").store("a", target(1.0))
    found = TargetStore(SHAPES, tmp_path, "vae").find("a")
    assert found is not None
    assert found.keys() == SHAPES.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in target(1.0).items())
    assert TargetStore(SHAPES, tmp_path, "another vae").find("a") is None


def test_targets_beyond_the_limit_are_read_from_disk_and_the_least_recent_is_dropped(tmp_path: Path) -> None:
    store = TargetStore(SHAPES, tmp_path, "vae", max_memory_nbytes=2 * nbytes())
    for number in range(4):
        store.store(str(number), target(float(number)))
    assert list(store._on_disk) == ["2", "3"]
    for number in range(4):
        found = store.find(str(number))
        assert found is not None
        assert torch.equal(found["mean"], target(float(number))["mean"])
    assert list(store._on_disk) == ["2", "3"]
    for key in ("2", "0"):
        store.find(key)
    assert list(store._on_disk) == ["2", "0"]


def test_without_a_folder_everything_stays_in_memory() -> None:
    store = TargetStore(SHAPES, None, "vae", max_memory_nbytes=0)
    store.store("a", target(1.0))
    store.store("b", target(2.0))
    assert store.find("a") is not None
    assert store.find("c") is None


def test_a_clip_is_encoded_once_under_the_hash_of_its_pixels(tmp_path: Path) -> None:
    encoded: list[Tensor] = []

    def encode(frames: Tensor) -> Target:
        encoded.append(frames)
        return target(frames.float().mean().item())

    targets, other = (ClipTargets(TargetStore(SHAPES, tmp_path, "vae"), (2, 8, 8, 3), encode) for _ in range(2))
    key = targets.add(CLIP)
    assert key == hashlib.sha256(CLIP.numpy().tobytes()).hexdigest()
    assert targets.add(CLIP.clone()) == other.add(CLIP) == key
    assert len(encoded) == 1
    assert torch.equal(encoded[0], CLIP)
    assert other.has([key, "0" * 64]) == [True, False]
    assert torch.equal(other.get(key)["mean"], target(CLIP.float().mean().item())["mean"])


@pytest.mark.parametrize("pixels", [CLIP[:1], CLIP.float(), CLIP.permute(3, 0, 1, 2)])
def test_other_clips_are_refused(pixels: Tensor) -> None:
    targets = ClipTargets(TargetStore(SHAPES, None, "vae"), (2, 8, 8, 3), lambda frames: target(0.0))
    with pytest.raises(BadArgument, match=r"pixels: expected uint8 \(2, 8, 8, 3\)"):
        targets.add(pixels)
    with pytest.raises(BadArgument, match="unknown target key `abc`"):
        targets.get("abc")
