"""A chain of three stages that the trainer drives: its tensors stay in device memory, and its numbers stay the same."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from device_chain import DEADLINE_S, FAKE, Servers, eventually
from mora_runtime import RunDirectory, Session
from mora_runtime.process.supervisor import Supervisor
from mora_trainer.chain.micro_batch import MicroBatch, MicroBatchResult
from mora_trainer.chain.remote_chain import RemoteChain
from mora_trainer.chain.stage import Stage
from mora_trainer.chain.stopwatch import Stopwatch
from mora_trainer.settings import PipelineSettings

from tests.toy_agents.__main__ import KINDS as TOY_KINDS
from tests.toy_agents.agents import WIDTH
from tests.toy_agents.options import NUM_FRAMES, SIDE

KINDS = {"first": "source", "second": "transform", "last": "last"}
NUM_BATCHES = 4


class Trained:
    """Three servers and a coordinator's stages."""

    def __init__(self, session: Session) -> None:
        self.stages = [
            Stage(
                name, session.connect(f"{name}.0", deadline_s=DEADLINE_S), TOY_KINDS[kind].options().interface(),
                loss_weight=float(name == "last"), trains=True, is_last=name == "last", deadline_s=DEADLINE_S,
            )
            for name, kind in KINDS.items()
        ]  # fmt: skip
        clip = torch.full((NUM_FRAMES, SIDE, SIDE, 3), 120, dtype=torch.uint8)
        last = self.stages[-1].client
        self.target = last.call("last", "store_target", {"pixels": clip}, deadline_s=DEADLINE_S).values["key"]

    def results(self, *, inputs_first: bool) -> list[MicroBatchResult]:
        """Forward and backward of some micro-batches that overlap."""
        generator = torch.Generator().manual_seed(1)
        z = {name: torch.randn(2, WIDTH, generator=generator) for name in KINDS}
        batches = [
            MicroBatch(
                dict.fromkeys(KINDS, ("a circle", "a star")),
                {name: (10 * k + i, 10 * k + i + 5) for i, name in enumerate(KINDS)},
                dict.fromkeys(KINDS, (self.target, self.target)),
            )
            for k in range(NUM_BATCHES)
        ]
        pipeline = PipelineSettings(inputs_first=inputs_first)
        return list(RemoteChain(self.stages, pipeline=pipeline).run(batches, z, Stopwatch()))

    def num_device(self) -> list[int]:
        """Tensors that each server has sent in device memory."""
        return [stage.client.ping(DEADLINE_S).num_device for stage in self.stages]


@pytest.fixture(scope="module")
def toys(run: RunDirectory) -> Iterator[None]:
    with Supervisor(print) as supervisor:
        servers = Servers(run, supervisor, "cpu", FAKE, script="toy_server.py")
        for seed, (name, kind) in enumerate(KINDS.items()):
            servers.start(f"{name}.0", TOY_AGENT=f"{name}:{kind}:{seed}")
        yield


@pytest.mark.parametrize("inputs_first", [False, True])
def test_the_chain_keeps_its_tensors_on_the_device_and_its_bits(
    toys: None, session: Session, inputs_first: bool
) -> None:
    trained = Trained(session)
    staged = trained.results(inputs_first=inputs_first)
    found = staged

    def all_stay() -> bool:
        nonlocal found
        before = trained.num_device()
        found = trained.results(inputs_first=inputs_first)
        # of each micro-batch: O_1; O_2 and dL/dO_1; dL/dO_2
        return [after - each for after, each in zip(trained.num_device(), before, strict=True)] == [
            NUM_BATCHES, 2 * NUM_BATCHES, NUM_BATCHES,
        ]  # fmt: skip

    assert eventually(all_stay), trained.num_device()
    for one, other in zip(staged, found, strict=True):
        assert one.loss == other.loss
        assert math.isfinite(one.loss)
        assert one.output_gradient_norms == other.output_gradient_norms
        assert set(one.gradients) == set(KINDS)
        assert all(torch.equal(one.gradients[name], other.gradients[name]) for name in KINDS)
