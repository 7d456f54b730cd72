"""Which clips are sent to which replica's agents, and when."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mora_data.sample import Sample
from mora_data.settings import ClipShape
from mora_trainer.targets import Targets, shares

_SHAPE = ClipShape(num_frames=5, height=16, width=16, fps=8)


@dataclass
class Agent:
    """A server's agent: its stored clips, and the calls that it got."""

    stored: set[str]
    shares_results: bool = True
    log: list[str] = field(default_factory=list)

    @property
    def welcome(self) -> Any:
        return SimpleNamespace(agents={"video": ["store_target", *(["has_targets"] if self.shares_results else [])]})

    def submit(self, agent: str, method: str, arguments: dict[str, Any], *, deadline_s: float) -> Any:
        assert (agent, method) == ("video", "store_target")
        pixels = arguments["pixels"]
        self.stored.add(hashlib.sha256(pixels.numpy().tobytes()).hexdigest())
        self.log.append(f"store {int(pixels[0, 0, 0, 0])}")
        key = hashlib.sha256(pixels.numpy().tobytes()).hexdigest()
        return SimpleNamespace(result=lambda: SimpleNamespace(values={"key": key}))

    def call(self, agent: str, method: str, arguments: dict[str, Any], *, deadline_s: float) -> Any:
        assert (agent, method) == ("video", "has_targets")
        self.log.append(f"ask for {len(arguments['keys'])}")
        return SimpleNamespace(values={"found": [key in self.stored for key in arguments["keys"]]})


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Sample]:
    """Eight samples, whose clips are full of their number."""

    def clip(self: Sample, shape: ClipShape) -> np.ndarray[Any, Any]:
        decoded.append(int(self.video.stem))
        return np.full((5, 16, 16, 3), int(self.video.stem), np.uint8)

    decoded: list[int] = []
    monkeypatch.setattr(Sample, "clip", clip)
    monkeypatch.setattr(Sample, "decoded", decoded, raising=False)
    for index in range(8):
        (tmp_path / f"{index}.mkv").write_text("a film")
    return [Sample("a prompt", tmp_path / f"{index}.mkv") for index in range(8)]


def _targets(agent: Agent, samples: list[Sample], folder: Path | None, *, loss_weight: float = 1.0) -> Targets:
    stage = SimpleNamespace(
        name="video", client=agent, loss_weight=loss_weight, deadline_s=1.0,
        interface=SimpleNamespace(needs_targets=True),
    )  # fmt: skip
    session = SimpleNamespace(empty=lambda shape, dtype: torch.empty(shape, dtype=dtype))
    return Targets(session, [stage], samples, _SHAPE, folder, deadline_s=5.0)  # type: ignore[arg-type, list-item]


def _nothing() -> None:
    return None


def _silent(done: int, total: int) -> None:
    return None


def _prepare_all(ranks: Sequence[Targets], needed: Sequence[Sequence[int]]) -> None:
    """Run `prepare` of two ranks as if side by side: the second one's at the barrier of the first one."""
    first, second = ranks

    def wait(of_second: Callable[[], None]) -> None:
        second.prepare(needed, 1, of_second, _silent)

    # the first rank's record is written before the barrier, and the second one's before its own
    state: list[str] = []

    def at_barrier() -> None:
        state.append("first")
        wait(lambda: state.append("second"))

    first.prepare(needed, 0, at_barrier, _silent)
    assert state == ["first", "second"]


def test_each_sample_is_sent_by_one_of_the_ranks_that_need_it() -> None:
    assert shares([[0, 1, 2]]) == [[0, 1, 2]]
    assert shares([[0, 1], [2, 3]]) == [[0, 1], [2, 3]]
    both = shares([[3, 1, 2, 0], [0, 1, 2, 3]])
    assert sorted(both[0] + both[1]) == [0, 1, 2, 3]
    assert len(both[0]) == len(both[1]) == 2
    uneven = shares([[0, 1, 2, 3], [0]])
    assert uneven == [[1, 2, 3], [0]]
    assert shares([[], []]) == [[], []]


def test_all_needed_clips_are_stored_before_the_first_step(samples: list[Sample], tmp_path: Path) -> None:
    agent = Agent(set())
    targets = _targets(agent, samples, tmp_path / "cache")
    told: list[tuple[int, int]] = []
    targets.prepare([[4, 2, 7]], 0, _nothing, lambda done, total: told.append((done, total)))
    assert agent.log == ["store 4", "store 2", "store 7"]
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert targets.keys(2)["video"] in agent.stored
    assert len(agent.log) == 3  # the step sends nothing
    targets.keys(5)
    assert agent.log[3:] == ["store 5"]


def test_replicas_that_share_results_send_each_clip_once(samples: list[Sample], tmp_path: Path) -> None:
    shared: set[str] = set()
    agents = [Agent(shared), Agent(shared)]
    ranks = [_targets(agent, samples, tmp_path / "cache") for agent in agents]
    _prepare_all(ranks, [[0, 1, 2, 3], [3, 2, 1, 0]])
    stored = [entry for agent in agents for entry in agent.log if entry.startswith("store")]
    assert sorted(stored) == ["store 0", "store 1", "store 2", "store 3"]
    assert all(sum(entry.startswith("store") for entry in agent.log) == 2 for agent in agents)
    assert [ranks[0].keys(index) for index in range(4)] == [ranks[1].keys(index) for index in range(4)]


@pytest.mark.parametrize("shares_results", [False, True], ids=["without has_targets", "with a folder of its own"])
def test_replicas_that_share_nothing_send_all_of_their_clips(
    samples: list[Sample], tmp_path: Path, shares_results: bool
) -> None:
    agents = [Agent(set(), shares_results) for _ in range(2)]
    ranks = [_targets(agent, samples, tmp_path / "cache") for agent in agents]
    _prepare_all(ranks, [[0, 1, 2], [0, 1, 2]])
    for agent in agents:
        assert sorted(entry for entry in agent.log if entry.startswith("store")) == ["store 0", "store 1", "store 2"]


def test_a_restart_asks_first_and_decodes_only_what_is_missing(samples: list[Sample], tmp_path: Path) -> None:
    agent = Agent(set())
    _targets(agent, samples, tmp_path / "cache").prepare([[0, 1]], 0, _nothing, _silent)
    del samples[0].decoded[:]  # type: ignore[attr-defined]
    agent.log.clear()
    again = _targets(agent, samples, tmp_path / "cache")
    again.prepare([[1, 0, 2]], 0, _nothing, _silent)
    assert agent.log == ["ask for 2", "store 2"]
    assert samples[0].decoded == [2]  # type: ignore[attr-defined]
    agent.stored.clear()  # the agents have lost their files
    agent.log.clear()
    _targets(agent, samples, tmp_path / "cache").prepare([[0, 1]], 0, _nothing, _silent)
    assert [entry for entry in agent.log if entry.startswith("store")] == ["store 0", "store 1"]


def test_a_changed_film_is_decoded_again(samples: list[Sample], tmp_path: Path) -> None:
    agent = Agent(set())
    _targets(agent, samples, tmp_path / "cache").prepare([[0, 1]], 0, _nothing, _silent)
    os.utime(samples[1].video, ns=(1, 1))
    agent.log.clear()
    _targets(agent, samples, tmp_path / "cache").prepare([[0, 1]], 0, _nothing, _silent)
    assert "store 1" in agent.log
    assert "store 0" not in agent.log


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', '{"a": {"video": 3}}', "\x00"])
def test_a_broken_record_counts_as_empty(samples: list[Sample], tmp_path: Path, content: str) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "clips-7.json").write_text(content)
    agent = Agent(set())
    _targets(agent, samples, tmp_path / "cache").prepare([[0]], 0, _nothing, _silent)
    assert agent.log == ["store 0"]
    assert len(json.loads((tmp_path / "cache" / "clips-0.json").read_text())) == 1


def test_a_chain_whose_agents_compare_with_nothing_decodes_nothing(samples: list[Sample], tmp_path: Path) -> None:
    agent = Agent(set())
    targets = _targets(agent, samples, tmp_path / "cache", loss_weight=0.0)
    targets.prepare([[0, 1]], 0, _nothing, _silent)
    assert targets.keys(0) == {}
    assert agent.log == []
    assert samples[0].decoded == []  # type: ignore[attr-defined]
