"""One chain that is reset to its first weights, trained as a variant says, and measured on held-out prompts."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import torch
from mora_data.sample_order import SampleOrder
from mora_data.seen_shapes import agreement
from mora_runtime import TensorRef
from mora_trainer.chain.generation import ChainGenerator
from mora_trainer.chain.micro_batch import MicroBatch
from mora_trainer.modulation import Modulation, modulation_factors
from mora_trainer.preparation import initial_embeddings
from mora_trainer.settings import ModulationSettings
from mora_trainer.step import JointStep, LearningRates
from mora_training.optimizer_agent import PARTICIPANT

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
        initial = initial_embeddings(session.chain.stages, settings, seed=1000 * seed)
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
        initial = initial_embeddings(self._session.chain.stages, ModulationSettings(), seed=0)
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
            losses.append(self._loss(batch, z))
            agreements += self._agreements(batch, places, z)
        shares = {name: statistics.fmean(found[name] for found in agreements) for name in agreements[0]}
        return {LOSS: statistics.fmean(losses), **shares}

    def _loss(self, batch: MicroBatch, z: Embeddings) -> float:
        """The loss of the chain, without gradient."""
        inputs: dict[str, TensorRef] = {}
        *before, last = self._session.chain.stages
        for stage in before:
            arguments = stage.arguments(batch.prompts[stage.name], batch.seeds[stage.name], inputs, z)
            reply = stage.client.call(stage.name, stage.method, arguments, deadline_s=DEADLINE_S)
            inputs = stage.outputs(reply, len(batch.seeds[stage.name]))
        arguments = last.arguments(batch.prompts[last.name], batch.seeds[last.name], inputs, z)
        arguments["target_keys"] = list(batch.targets[last.name])
        loss = last.loss(last.client.call(last.name, last.method, arguments, deadline_s=DEADLINE_S))
        assert loss is not None
        return loss

    def _agreements(self, batch: MicroBatch, places: range, z: Embeddings) -> list[Measured]:
        generator = ChainGenerator(self._session.chain.stages)
        found = []
        for index, place in enumerate(places):
            prompts = {name: keys[index] for name, keys in batch.prompts.items()}
            seeds = {name: each[index] for name, each in batch.seeds.items()}
            made = generator.make(prompts, seeds, z)
            found.append(agreement(held_out(place), made.first_frame, made.clip))
        return found


def _values(modulation: Modulation | None) -> Embeddings:
    return {} if modulation is None else {name: z.clone() for name, z in modulation.all_embeddings().items()}
