"""Replicas share the prompts of samples, and wait for each other outside of their group's timeout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch.distributed as dist
from mora_trainer.chain.generation import ChainGenerator, Made
from mora_trainer.job import TrainingJob, _group_settings, _patience_s
from mora_trainer.samples import SamplePrompt, Sampler, Share
from mora_trainer.settings import CoordinatorSettings

NUM_PROMPTS = 3


class Drawer:
    """A chain of two agents whose picture and clip follow from prompt, seed and weights, as on every replica."""

    def __init__(self) -> None:
        self.stages = (SimpleNamespace(name="image"), SimpleNamespace(name="video"))
        self.asked: list[str] = []
        self.weights = 1

    def make(self, prompts: Mapping[str, str], seeds: Mapping[str, int], embeddings: Mapping[str, Any]) -> Made:
        self.asked.append(prompts["image"])
        values = np.random.default_rng([self.weights, seeds["video"], *prompts["image"].encode()])
        clip = values.integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)
        return Made({"image": clip[0]}, clip)


def sampler_of(drawer: Drawer, folder: Path, share: Share) -> Sampler:
    folder.mkdir(exist_ok=True)
    prompts = [
        SamplePrompt(f"prompt {number}", {"image": f"key {number}"}, np.full((5, 16, 16, 3), number, dtype=np.uint8))
        for number in range(NUM_PROMPTS)
    ]
    return Sampler(cast(ChainGenerator, drawer), prompts, fps=8, seed=3, folder=folder, share=share)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_replicas_make_the_files_of_one_each_half_of_them(tmp_path: Path) -> None:
    alone = sampler_of(Drawer(), tmp_path / "one", Share(0, 1))
    drawers = [Drawer(), Drawer()]
    ranks = [sampler_of(drawer, tmp_path / "two", Share(rank, 2)) for rank, drawer in enumerate(drawers)]
    for weights, label in ((1, "before"), (2, "after")):
        for drawer in (*drawers, cast(Drawer, alone._generator)):
            drawer.weights = weights
        for sampler in (alone, *reversed(ranks)):
            sampler.take(label, {})
        alone.draw_sheet()
        ranks[0].draw_sheet()
    assert [drawer.asked for drawer in drawers] == [["key 0", "key 2"] * 2, ["key 1"] * 2]
    made = files_of(tmp_path / "one")
    assert set(made) >= {"contact-sheet.png", "before-1.mp4", "after-1-image.png"}
    assert files_of(tmp_path / "two") == made


def coordinator_settings(**changes: Any) -> CoordinatorSettings:
    """Settings with only what the waits depend on."""
    training = SimpleNamespace(call_deadline_s=changes.pop("call_deadline_s", 600.0))
    values = {
        "replica": 1, "num_replicas": 2, "rendezvous": "file:///nowhere", "chain": (1, 2),
        "samples": SimpleNamespace(num_prompts=3), "training": training,
    }  # fmt: skip
    return cast(CoordinatorSettings, SimpleNamespace(**{**values, **changes}))


def test_a_rank_waits_longer_than_any_call_of_another() -> None:
    for call_deadline_s in (10.0, 600.0, 3600.0):
        assert _group_settings(coordinator_settings(call_deadline_s=call_deadline_s)).timeout_s > call_deadline_s


@pytest.mark.parametrize(("num_replicas", "num_prompts_of_the_busiest"), [(2, 2), (3, 1), (4, 1)])
def test_a_rank_waits_for_as_many_calls_as_the_samples_of_another_can_take(
    num_replicas: int, num_prompts_of_the_busiest: int
) -> None:
    settings = coordinator_settings(num_replicas=num_replicas)
    assert _patience_s(settings, 1) > num_prompts_of_the_busiest * 2 * 600.0
    assert _patience_s(settings, 100) > 2 * 100 * 600.0, "or those that store targets"


@pytest.mark.parametrize("is_first", [True, False])
def test_the_sheet_is_drawn_by_the_first_rank_after_all_have_met_in_the_patient_group(
    is_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[object] = []
    monkeypatch.setattr(dist, "barrier", lambda group: events.append(group))
    job = object.__new__(TrainingJob)
    job._is_first, job._modulation, job._patient_group = is_first, None, "patient"  # type: ignore[assignment]
    job._sampler = cast(
        Sampler,
        SimpleNamespace(take=lambda label, embeddings: events.append(label), draw_sheet=lambda: events.append("sheet")),
    )
    job._take_sample("before")
    assert events == ["before", "patient", *(["sheet"] if is_first else [])]
