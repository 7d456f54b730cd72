"""One chain that is reset to its first weights, trained as a variant says, and measured on held-out prompts."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

import torch
from mora_data.dataset import SampleOrder
from mora_runtime import TensorRef
from mora_trainer.chain import AGENTS, IMAGE, VIDEO, MicroBatch
from mora_trainer.modulation import Modulation, modulation_factors
from mora_trainer.preparation import initial_embeddings
from mora_trainer.settings import ModulationSettings
from mora_trainer.step import JointStep, LearningRates
from mora_training.optimizer_agent import PARTICIPANT

from benchmarks.agreement import agreement
from benchmarks.chain_session import DEADLINE_S, ChainSession
from benchmarks.learn.data import HELD_OUT, TRAINED, held_out
from benchmarks.learn.variants import Variant

_START = "probe-start"
_CLIPS_A_PROMPT = 2
LOSS = "loss"
Measured = dict[str, float]  # `loss`, and for each property the share of clips that agree
Embeddings = dict[str, torch.Tensor]


@dataclass(frozen=True)
class HeldOutOrder:
    """Held-out samples in their order, with noise that is the same for every variant of one seed."""

    seed: int

    def sample_index(self, place: int) -> int:
        """Index of the sample at this place of the order."""
        return len(TRAINED) + place % len(HELD_OUT)

    def noise_seed(self, place: int) -> int:
        """Noise seed at this place of the order."""
        return 1_000_003 * (place + 1) + self.seed


class LearningSession:
    """Trains and measures; every run begins with the same weights."""

    def __init__(self, session: ChainSession) -> None:
        self._session = session
        self._before: dict[str, Measured] = {}
        for client in session.clients.values():
            client.call(PARTICIPANT, "save", {"folder": _START}, deadline_s=DEADLINE_S)
            client.call(PARTICIPANT, "saved", {"wait_s": DEADLINE_S}, deadline_s=DEADLINE_S)

    def run(self, variant: Variant, seed: int, num_steps: int) -> tuple[Measured, Measured]:
        """Train for `num_steps`; returns what held-out prompts gave before and after."""
        session, training, settings = self._session, self._session.config.training, variant.modulation
        for client in session.clients.values():
            client.call(PARTICIPANT, "load", {"folder": _START}, deadline_s=DEADLINE_S)
        initial = initial_embeddings(session.clients, settings, seed=1000 * seed, deadline_s=DEADLINE_S)
        modulation = Modulation(initial, settings.alpha, settings.optimizer) if initial else None
        step = JointStep(
            session.chain, session.clients, modulation, clip_norm=training.clip_norm, deadline_s=DEADLINE_S
        )
        order = SampleOrder(len(TRAINED), seed=seed, shuffle=True)
        untrained = f"{settings.mode} {seed}"  # independent of alpha
        if untrained not in self._before:
            self._before[untrained] = self._measure(_values(modulation), seed)
        rates = self._learned_rates() if variant.learned_rates else session.rates()
        for number in range(num_steps):
            step.run(number, self._batches(order, number), rates)
        return self._before[untrained], self._measure(_values(modulation), seed)

    def _learned_rates(self) -> LearningRates:
        initial = initial_embeddings(self._session.clients, ModulationSettings(), seed=0, deadline_s=DEADLINE_S)
        alphas, rates = modulation_factors(initial, "norm"), self._session.rates()
        return LearningRates({name: alphas[name] * rate for name, rate in rates.parameters.items()}, rates.embeddings)

    def _batches(self, order: SampleOrder, step: int) -> list[MicroBatch]:
        training = self._session.config.training
        first, size = step * training.batch_size, training.micro_batch_size
        places = range(first, first + training.batch_size)
        return [self._session.corpus.micro_batch(order, places[at : at + size]) for at in range(0, len(places), size)]

    def _measure(self, z: Embeddings, seed: int) -> Measured:
        """Measure every held-out prompt several times: denoising loss, and how the generated clip agrees with it."""
        order, size = HeldOutOrder(seed), len(HELD_OUT)
        losses: list[float] = []
        agreements: list[Measured] = []
        for first in range(0, size * _CLIPS_A_PROMPT, size):
            places = range(first, first + size)
            batch = self._session.corpus.micro_batch(order, places)  # type: ignore[arg-type]
            images = self._render(batch, z)
            losses.append(self._loss(batch, images, z))
            agreements += self._agreements(batch, places, images, z)
        shares = {name: statistics.fmean(found[name] for found in agreements) for name in agreements[0]}
        return {LOSS: statistics.fmean(losses), **shares}

    def _render(self, batch: MicroBatch, z: Embeddings) -> TensorRef:
        arguments: dict[str, Any] = {
            "z": z.get(IMAGE), "prompt_keys": list(batch.image_prompts), "seeds": list(batch.seeds), "frame_keys": None,
        }  # fmt: skip
        return self._call(IMAGE, "render", arguments, "images")

    def _loss(self, batch: MicroBatch, images: TensorRef, z: Embeddings) -> float:
        arguments: dict[str, Any] = {
            "z": z.get(VIDEO), "prompt_keys": list(batch.video_prompts), "images": images,
            "target_keys": list(batch.targets), "seeds": list(batch.seeds),
        }  # fmt: skip
        return float(self._call(VIDEO, "loss", arguments, "loss").tensor())

    def _agreements(self, batch: MicroBatch, places: range, images: TensorRef, z: Embeddings) -> list[Measured]:
        pictures = ((images.tensor().float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        found = []
        for place, prompt, picture, seed in zip(places, batch.video_prompts, pictures, batch.seeds, strict=True):
            arguments: dict[str, Any] = {
                "z": z.get(VIDEO), "prompt_key": prompt, "image": picture.contiguous(), "seed": seed,
            }  # fmt: skip
            clip = self._call(VIDEO, "animate", arguments, "frames").tensor()
            found.append(agreement(held_out(place), picture.numpy(), clip.numpy()))
        return found

    def _call(self, agent: str, method: str, arguments: dict[str, Any], wanted: str) -> TensorRef:
        found = self._session.clients[agent].call(agent, method, arguments, deadline_s=DEADLINE_S).values[wanted]
        assert isinstance(found, TensorRef)
        return found


def _values(modulation: Modulation | None) -> Embeddings:
    return {} if modulation is None else {name: modulation.embedding(name).clone() for name in AGENTS}
