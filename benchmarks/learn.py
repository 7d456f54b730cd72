"""`mora bench learn`: does joint fine-tuning carry over to prompts it never saw, and what does modulation add?

Clips of moving shapes whose prompt names colour, form and direction. The chain is trained on some combinations and
measured on others: the denoising loss of the held-out clip given its prompt and the picture O_1 that the image agent
renders for it, with the same noise for every variant. It needs no judge, and it is what training lowers on its own
clips; it is not the agreement of finished pictures with their prompts, which random autoencoders cannot show.

All variants of a seed begin with the same weights and see the same samples and noise in the same order. Intervals are
95 % of Student's t over the seeds.
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mora_launch.config import TrainConfig, load_config
from mora_launch.environments import ROOT
from mora_runtime import TensorRef
from mora_runtime.participant import PARTICIPANT
from mora_trainer.chain import AGENTS, IMAGE, VIDEO, MicroBatch
from mora_trainer.dataset import SampleOrder
from mora_trainer.modulation import Modulation
from mora_trainer.preparation import initial_embeddings
from mora_trainer.settings import ModulationSettings
from mora_trainer.step import JointStep

from benchmarks.chain_session import DEADLINE_S, ChainSession, chain_session
from benchmarks.figures import add_json_option, save


@dataclass(frozen=True)
class Variant:
    """What a training differs by, as a configuration says it."""

    modulation: ModulationSettings = field(default_factory=ModulationSettings)
    scope: str = "joint"


VARIANTS = {
    "learned": Variant(),
    "none": Variant(ModulationSettings(mode="none")),
    "random_init": Variant(ModulationSettings(mode="random_init")),
    "learned, alpha one": Variant(ModulationSettings(alpha="one")),
    "learned, image only": Variant(scope="image_only"),
    "learned, video only": Variant(scope="video_only"),
}
START = "probe-start"
_T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}


@dataclass(frozen=True)
class HeldOut:
    """Held-out samples in their order, each with noise of its own that is the same in every measurement."""

    first: int
    number: int

    def sample_index(self, place: int) -> int:
        """Index of the sample at a place."""
        return self.first + place % self.number

    def noise_seed(self, place: int) -> int:
        """Seed of a place."""
        return 1_000_003 * (place + 1)


class LearningSession:
    """A chain that is put back to its first weights before every variant.

    Args:
        num_training: the first clips, which are trained on; the others are held out.
    """

    def __init__(self, session: ChainSession, num_training: int, num_noises: int) -> None:
        self._session = session
        self._num_training = num_training
        self._held_out = HeldOut(num_training, len(session.samples) - num_training)
        self._num_noises = num_noises
        for client in session.clients.values():
            client.call(PARTICIPANT, "save", {"folder": START}, deadline_s=DEADLINE_S)
            client.call(PARTICIPANT, "saved", {"wait_s": DEADLINE_S}, deadline_s=DEADLINE_S)

    def run(self, settings: ModulationSettings, seed: int, num_steps: int) -> tuple[float, float]:
        """Held-out loss before and after so many steps."""
        session, training = self._session, self._session.config.training
        for client in session.clients.values():
            client.call(PARTICIPANT, "load", {"folder": START}, deadline_s=DEADLINE_S)
        initial = initial_embeddings(session.clients, settings, seed=1000 * seed, deadline_s=DEADLINE_S)
        modulation = Modulation(initial, settings.alpha, settings.optimizer) if initial else None
        step = JointStep(
            session.chain, session.clients, modulation, clip_norm=training.clip_norm, deadline_s=DEADLINE_S
        )
        order = SampleOrder(self._num_training, seed=seed, shuffle=True)
        before = self._loss(modulation)
        for number in range(num_steps):
            step.run(number, self._batches(order, number), session.rates())
        return before, self._loss(modulation)

    def _batches(self, order: SampleOrder, step: int) -> list[MicroBatch]:
        training = self._session.config.training
        first, size = step * training.batch_size, training.micro_batch_size
        places = range(first, first + training.batch_size)
        return [self._session.corpus.micro_batch(order, places[at : at + size]) for at in range(0, len(places), size)]

    def _loss(self, modulation: Modulation | None) -> float:
        """Mean denoising loss of the held-out clips, without gradients."""
        num_places = self._held_out.number * self._num_noises
        size = self._held_out.number
        losses = []
        for start in range(0, num_places, size):
            batch = self._session.corpus.micro_batch(self._held_out, range(start, start + size))  # type: ignore[arg-type]
            losses.append(self._batch_loss(batch, modulation))
        return statistics.fmean(losses)

    def _batch_loss(self, batch: MicroBatch, modulation: Modulation | None) -> float:
        z = {} if modulation is None else {name: modulation.embedding(name).clone() for name in AGENTS}
        clients, seeds = self._session.clients, list(batch.seeds)
        arguments: dict[str, Any] = {
            "z": z.get(IMAGE), "prompt_keys": list(batch.image_prompts), "seeds": seeds, "frame_keys": None,
        }  # fmt: skip
        images = clients[IMAGE].call(IMAGE, "render", arguments, deadline_s=DEADLINE_S).values["images"]
        arguments = {
            "z": z.get(VIDEO), "prompt_keys": list(batch.video_prompts), "images": images,
            "target_keys": list(batch.targets), "seeds": seeds,
        }  # fmt: skip
        loss = clients[VIDEO].call(VIDEO, "loss", arguments, deadline_s=DEADLINE_S).values["loss"]
        assert isinstance(loss, TensorRef)
        return float(loss.tensor())


def interval(values: list[float]) -> dict[str, Any]:
    """Mean and 95 % interval."""
    mean = statistics.fmean(values)
    half = _T95.get(len(values), 1.96) * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return {"mean": round(mean, 4), "low": round(mean - half, 4), "high": round(mean + half, 4), "values": values}


Pairs = dict[str, list[tuple[float, float]]]  # held-out loss before and after, of every seed, by variant


def measure_scope(config: TrainConfig, folder: Path, seeds: int, num_steps: int, num_training: int) -> Pairs:
    """All variants of one scope over all seeds. Once in a process: DeepSpeed joins one group in its life."""
    torch.set_num_threads(1)
    variants = {name: variant.modulation for name, variant in VARIANTS.items() if variant.scope == config.scope}
    found: Pairs = {name: [] for name in variants}
    with chain_session(config, folder) as session:
        learning = LearningSession(session, num_training, num_noises=4)
        for seed, (name, modulation) in itertools.product(range(seeds), variants.items()):
            before, after = learning.run(modulation, seed, num_steps)
            found[name].append((before, after))
            print(f"seed {seed}  {name:20s} held-out loss {before:.4f} -> {after:.4f}", flush=True)
    return found


def figures(found: Pairs) -> dict[str, Any]:
    """By variant: held-out loss before, after, their difference, and how far the variant ends above `learned`."""
    return {
        name: {
            "before": interval([before for before, _ in pairs]),
            "after": interval([after for _, after in pairs]),
            "change": interval([after - before for before, after in pairs]),
            "against_learned": interval(
                [after - reference for (_, after), (_, reference) in zip(pairs, found["learned"], strict=True)]
            ),
        }
        for name, pairs in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="mora bench learn", description=__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "tiny.yaml")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--clips", type=int, default=24, help="combinations of colour, form and direction, at most 32")
    parser.add_argument("--training-clips", type=int, default=16)
    add_json_option(parser)
    arguments = parser.parse_args()
    changes = [f"data.num_clips={arguments.clips}", "samples.enabled=false"]
    pairs: Pairs = {}
    with (
        tempfile.TemporaryDirectory(prefix="mora-learn-") as folder,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as processes,
    ):
        for scope in dict.fromkeys(variant.scope for variant in VARIANTS.values()):
            config = load_config(arguments.config, [*changes, f"scope={scope}"])
            plan = (arguments.seeds, arguments.steps, arguments.training_clips)
            pairs |= processes.submit(measure_scope, config, Path(folder) / scope, *plan).result()
    found = figures(pairs)
    print(f"\nheld-out loss over {arguments.seeds} seeds, mean [95 % interval]")
    for name, intervals in found.items():
        shown = "  ".join(
            f"{key} {value['mean']:.4f} [{value['low']:.4f}, {value['high']:.4f}]" for key, value in intervals.items()
        )
        print(f"{name:20s}{shown}")
    save(found, arguments.json)


if __name__ == "__main__":
    main()
