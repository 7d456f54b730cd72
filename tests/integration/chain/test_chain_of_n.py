"""Chains of any length over servers: the gradients are those of one process, to the bit."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mora_environment.interface import Interface, Port
from mora_runtime.errors import BadArgument, ProtocolError
from mora_runtime.rpc.spawn import SpawnedServer, spawn
from mora_trainer.chain.generation import ChainGenerator
from mora_trainer.chain.micro_batch import MicroBatch
from mora_trainer.chain.remote_chain import RemoteChain
from mora_trainer.chain.stage import Stage
from mora_trainer.chain.stopwatch import Stopwatch
from mora_trainer.settings import PipelineSettings

from tests.toy_agents.__main__ import KINDS as TOY_KINDS
from tests.toy_agents.agents import WIDTH
from tests.toy_agents.host import toy
from tests.toy_agents.options import NUM_FRAMES, SIDE

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "tests" / "toy_agents" / "host.py"
BATCH = 2  # samples of a micro-batch
PROMPTS = ("a circle", "a large square", "a star", "rings")


@dataclass
class Toys:
    """One server for each kind of toy agent, and the same agents in this process."""

    servers: dict[str, SpawnedServer]
    local: dict[str, Any]
    target_keys: list[str]

    def interface(self, name: str) -> Interface:
        found: Interface = TOY_KINDS[KINDS[name]].options().interface()
        return found

    def stages(self, names: list[str], losses: dict[str, float], frozen: tuple[str, ...] = ()) -> list[Stage]:
        return [
            Stage(
                name, self.servers[name].client, self.interface(name), loss_weight=losses.get(name, 0.0),
                trains=name not in frozen and name != "taste", is_last=name == names[-1], deadline_s=30.0,
            )
            for name in names
        ]  # fmt: skip


KINDS = {
    "first": "source", "second": "transform", "third": "transform", "moves": "mover", "last": "last",
    "taste": "critic",
}  # fmt: skip


@pytest.fixture(scope="module")
def toys() -> Iterator[Toys]:
    with ExitStack() as stack:
        servers, local = {}, {}
        for seed, (name, kind) in enumerate(KINDS.items()):
            variables = {"TOY_AGENT": f"{name}:{kind}:{seed}", "PYTHONPATH": str(ROOT)}
            servers[name] = stack.enter_context(spawn(sys.executable, SCRIPT, variables=variables))
            local[name] = toy(kind, seed)
        clips = [torch.full((NUM_FRAMES, SIDE, SIDE, 3), value, dtype=torch.uint8) for value in (20, 120, 220)]
        for name in ("first", "last"):
            keys = [servers[name].call(name, "store_target", pixels=clip).values["key"] for clip in clips]
            assert [local[name].store_target(clip)["key"] for clip in clips] == keys
        yield Toys(servers, local, keys)


def batches(toys: Toys, names: list[str], number: int) -> list[MicroBatch]:
    keys = toys.target_keys
    made = []
    for k in range(number):
        prompts = (PROMPTS[k % 4], PROMPTS[(k + 1) % 4])
        made.append(
            MicroBatch(
                prompts=dict.fromkeys(names, prompts),
                seeds={name: (10 * k + i, 10 * k + i + 5) for i, name in enumerate(names)},
                targets=dict.fromkeys(names, (keys[k % 3], keys[(k + 1) % 3])),
            )
        )
    return made


def embeddings(toys: Toys, names: list[str]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    with_z = [name for name in names if toys.interface(name).has_modulation]
    return {name: torch.randn(2, WIDTH, generator=generator) for name in with_z}


def local_gradients(
    toys: Toys, names: list[str], losses: dict[str, float], z: dict[str, torch.Tensor], number: int
) -> tuple[list[float], dict[str, list[torch.Tensor]], dict[str, dict[str, torch.Tensor]]]:
    """Losses, dL/dz of every micro-batch and accumulated gradients of every model, in one process."""
    totals, z_gradients = [], {name: [] for name in z}
    for batch in batches(toys, names, number):
        leaves = {name: value.clone().requires_grad_() for name, value in z.items()}
        given: dict[str, torch.Tensor] = {}
        total, scaled = 0.0, []
        for name in names:
            agent, weight = toys.local[name], losses.get(name, 0.0)
            taken = {port: given[port] for port in toys.interface(name).takes}
            if toys.interface(name).is_critic:
                returned = agent.loss(list(batch.prompts[name]), **taken)
            else:
                targets = {"target_keys": list(batch.targets[name])} if weight else {}
                method = agent.loss if name == names[-1] and taken else agent.forward
                returned = method(
                    leaves.get(name), list(batch.prompts[name]), list(batch.seeds[name]), **taken, **targets
                )
            if weight:
                total += weight * float(returned["loss"].detach())
                scaled.append((returned["loss"], torch.tensor(weight / number)))
            given = returned
        torch.autograd.backward([loss for loss, _ in scaled], [scale for _, scale in scaled])
        totals.append(total)
        for name, leaf in leaves.items():
            z_gradients[name].append(leaf.grad)
    return totals, z_gradients, {name: toys.local[name].take_gradients() for name in names if name != "taste"}


def run(
    toys: Toys, names: list[str], losses: dict[str, float], pipeline: PipelineSettings, number: int, frozen: Any = ()
) -> list[Any]:
    chain = RemoteChain(toys.stages(names, losses, frozen), pipeline=pipeline)
    return list(chain.run(batches(toys, names, number), embeddings(toys, names), Stopwatch()))


CHAINS = [
    (["first"], {"first": 1.0}),
    (["first", "last"], {"last": 1.0}),
    (["first", "second", "last"], {"last": 1.0}),
    (["first", "second", "third", "last"], {"last": 1.0, "first": 0.25}),
    (["first", "second", "moves", "taste"], {"taste": 0.5, "first": 0.25}),
]


@pytest.mark.parametrize(("names", "losses"), CHAINS)
@pytest.mark.parametrize("inputs_first", [False, True])
@pytest.mark.parametrize("max_in_flight", [1, None, 8])
def test_gradients_are_those_of_one_process_to_the_bit(
    toys: Toys, names: list[str], losses: dict[str, float], inputs_first: bool, max_in_flight: int | None
) -> None:
    number = 5
    results = run(toys, names, losses, PipelineSettings(max_in_flight=max_in_flight, inputs_first=inputs_first), number)
    z = embeddings(toys, names)
    totals, z_gradients, gradients = local_gradients(toys, names, losses, z, number)
    assert [result.loss for result in results] == totals
    for name in z:
        for result, expected in zip(results, z_gradients[name], strict=True):
            assert torch.equal(result.gradients[name], expected), name
    for name, expected in gradients.items():
        remote = toys.servers[name].call(name, "take_gradients").values
        assert expected
        assert set(remote) == set(expected)
        for key, value in expected.items():
            assert torch.equal(remote[key].tensor(), value), (name, key)


def test_each_output_has_the_norm_of_its_gradient(toys: Toys) -> None:
    names = ["first", "second", "last"]
    result = run(toys, names, {"last": 1.0}, PipelineSettings(), 1)[0]
    batch = batches(toys, names, 1)[0]
    z, local = embeddings(toys, names), toys.local
    images = local["first"].forward(z["first"], list(batch.prompts["first"]), list(batch.seeds["first"]))["images"]
    refined = local["second"].forward(z["second"], [], list(batch.seeds["second"]), images)["images"]
    targets = list(batch.targets["last"])
    loss = local["last"].loss(z["last"], [], list(batch.seeds["last"]), refined, targets)["loss"]
    for name, output in (("first", images), ("second", refined)):
        (gradient,) = torch.autograd.grad(loss, output, retain_graph=True)
        assert result.output_gradient_norms[name] == pytest.approx(float(gradient.norm()), rel=1e-6)
    assert set(result.output_gradient_norms) == {"first", "second"}
    for name in names:
        toys.servers[name].call(name, "take_gradients")


def test_agents_before_the_first_that_trains_get_no_backward(toys: Toys) -> None:
    names, losses = ["first", "second", "last"], {"last": 1.0}
    chain = RemoteChain(toys.stages(names, losses, frozen=("first", "second")), pipeline=PipelineSettings())
    results = list(chain.run(batches(toys, names, 3), {}, Stopwatch()))
    assert all(result.output_gradient_norms == {} for result in results)
    for name in ("first", "second"):
        assert toys.servers[name].call(name, "take_gradients").values == {}
    assert toys.servers["last"].call("last", "take_gradients").values


def test_a_frozen_agent_passes_the_gradient_on_and_gets_none_itself(toys: Toys) -> None:
    names, losses = ["first", "second", "last"], {"last": 1.0}
    whole = run(toys, names, losses, PipelineSettings(), 2)
    for name in names:
        toys.servers[name].call(name, "take_gradients")
    results = run(toys, names, losses, PipelineSettings(), 2, frozen=("second",))
    for result, expected in zip(results, whole, strict=True):
        assert torch.equal(result.gradients["first"], expected.gradients["first"])
        assert not result.gradients["second"].any()
        assert result.output_gradient_norms == expected.output_gradient_norms
    for name in names:
        toys.servers[name].call(name, "take_gradients")


def test_generation_gives_what_every_agent_makes(toys: Toys) -> None:
    names = ["first", "second", "last"]
    generator = ChainGenerator(toys.stages(names, {"last": 1.0}))
    made = generator.make(dict.fromkeys(names, "a star"), dict.fromkeys(names, 3), {})
    assert {name: pixels.shape for name, pixels in made.stages.items()} == {
        "first": (SIDE, SIDE, 3),
        "second": (SIDE, SIDE, 3),
    }
    assert made.clip.shape == (NUM_FRAMES, SIDE, SIDE, 3)
    assert (made.clip[0] == made.first_frame).all()
    assert (made.first_frame == made.stages["second"]).all()


def test_a_chain_that_ends_with_a_critic_generates_what_the_critic_scores(toys: Toys) -> None:
    names = ["first", "moves", "taste"]
    made = ChainGenerator(toys.stages(names, {"taste": 1.0})).make(
        dict.fromkeys(names, "x"), dict.fromkeys(names, 3), {}
    )
    assert made.clip.shape == (NUM_FRAMES, SIDE, SIDE, 3)
    assert list(made.stages) == ["first"]


def test_an_agent_that_does_not_give_what_it_declares_is_named(toys: Toys) -> None:
    stages = toys.stages(["first", "last"], {"last": 1.0})
    wrong = toys.interface("moves")
    stages[0] = Stage("first", stages[0].client, wrong, loss_weight=0.0, trains=True, is_last=False, deadline_s=30.0)
    with pytest.raises((ProtocolError, BadArgument), match="first"):
        list(RemoteChain(stages, pipeline=PipelineSettings()).run(batches(toys, ["first", "last"], 1), {}, Stopwatch()))


def named_when_declared(toys: Toys, changed: Interface) -> str:
    """What a chain says whose first agent declares something else than it gives, in a step and in a sample."""
    names = ["first", "last"]
    stages = toys.stages(names, {"last": 1.0})
    stages[0] = replace(stages[0], interface=changed)
    with pytest.raises(ProtocolError) as in_step:
        list(RemoteChain(stages, pipeline=PipelineSettings()).run(batches(toys, names, 1), {}, Stopwatch()))
    with pytest.raises(ProtocolError) as in_sample:
        ChainGenerator(stages).make(dict.fromkeys(names, "a star"), dict.fromkeys(names, 3), {})
    assert str(in_sample.value) == str(in_step.value).replace(f"({BATCH}, ", "(1, ")
    return str(in_step.value)


@pytest.mark.parametrize(
    ("port", "declared"),
    [
        (Port(modality="images", height=SIDE // 2), f"{BATCH}, 3, {SIDE // 2}, any"),
        (Port(modality="frames"), f"{BATCH}, any, 3, any, any"),
    ],
)
def test_an_output_of_another_shape_than_declared_is_refused(toys: Toys, port: Port, declared: str) -> None:
    said = named_when_declared(toys, toys.interface("first").model_copy(update={"gives": {"images": port}}))
    assert said.startswith(f"first.forward: expected `images` as float numbers ({declared}), as its interface declares")
    assert f"got torch.float32 ({BATCH}, 3, {SIDE}, {SIDE}); correct the agent" in said


def test_a_sample_of_another_shape_than_declared_is_refused(toys: Toys) -> None:
    names = ["first", "last"]
    stages = toys.stages(names, {"last": 1.0})
    pictures = toys.interface("last").model_copy(update={"generates": Port(modality="images")})
    stages[1] = replace(stages[1], interface=pictures)
    with pytest.raises(ProtocolError, match=r"last\.generate: expected `outputs` as uint8 \(1, H, W, 3\), got torch"):
        ChainGenerator(stages).make(dict.fromkeys(names, "a star"), dict.fromkeys(names, 3), {})


def test_a_failure_inside_the_chain_names_the_server_and_leaves_the_servers_usable(toys: Toys) -> None:
    names, losses = ["first", "second", "last"], {"last": 1.0}
    bad = batches(toys, names, 3)
    bad[1] = MicroBatch(bad[1].prompts, {**bad[1].seeds, "second": (1,)}, bad[1].targets)
    chain = RemoteChain(toys.stages(names, losses), pipeline=PipelineSettings())
    with pytest.raises(BadArgument, match=r"spawned.*expected a seed a picture, got 1 seeds and 2 pictures"):
        list(chain.run(bad, {}, Stopwatch()))
    for name in names:
        toys.servers[name].call(name, "take_gradients")
    assert len(list(chain.run(batches(toys, names, 3), {}, Stopwatch()))) == 3
    for name in names:
        toys.servers[name].call(name, "take_gradients")
