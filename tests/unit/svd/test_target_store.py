"""Targets survive on disk, by clip, size and autoencoder, and memory stays bounded."""

from __future__ import annotations

from pathlib import Path

import torch
from mora_env_svd.seine.conditioning import ClipSize, Posterior
from mora_env_svd.seine.target_store import TargetStore

SIZE = ClipSize(3, 16, 16)


def target(value: float) -> Posterior:
    return Posterior(torch.full((3, 4, 2, 2), value), torch.ones(3, 4, 2, 2))


def test_another_process_finds_what_one_stored(tmp_path: Path) -> None:
    TargetStore(SIZE, tmp_path, "vae").store("a", target(1.0))
    found = TargetStore(SIZE, tmp_path, "vae").find("a")
    assert found is not None
    assert torch.equal(found.mean, target(1.0).mean)
    for size, identity in ((SIZE, "another vae"), (ClipSize(3, 16, 24), "vae")):
        assert TargetStore(size, tmp_path, identity).find("a") is None


def test_targets_beyond_the_limit_are_read_from_disk(tmp_path: Path) -> None:
    store = TargetStore(SIZE, tmp_path, "vae", max_memory_nbytes=target(0.0).mean.nbytes * 2)
    for name, value in (("a", 1.0), ("b", 2.0)):
        store.store(name, target(value))
    assert list(store._on_disk) == ["b"]
    found = store.find("a")
    assert found is not None
    assert found.mean[0, 0, 0, 0] == 1.0
    assert list(store._on_disk) == ["a"]


def test_without_a_folder_everything_stays_in_memory() -> None:
    store = TargetStore(SIZE, None, "vae", max_memory_nbytes=0)
    store.store("a", target(1.0))
    store.store("b", target(2.0))
    assert store.find("a") is not None
    assert store.find("c") is None
