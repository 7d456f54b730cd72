"""Preparation between connecting to the servers and the first step: prompts, targets, first value of every z_i."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mora_data.sample import Sample
from mora_data.sample_order import SampleOrder
from mora_data.settings import ClipShape
from mora_runtime import Client, Session, TensorRef
from mora_runtime.errors import ProtocolError
from mora_training.optimizer_agent import PARTICIPANT

from mora_trainer.chain.micro_batch import MicroBatch
from mora_trainer.chain.stage import Stage
from mora_trainer.modulation import random_rows
from mora_trainer.settings import ModulationSettings
from mora_trainer.targets import Targets

PROMPTS_PER_CALL = 16


class Corpus:
    """The servers' copy of the dataset: keys of encoded prompts and of target clips.

    Args:
        stages: of the chain; each encodes the prompts, and those that compare with targets receive them.
        samples: the dataset, in file order.
        records: see `Targets`.
    """

    def __init__(
        self,
        session: Session,
        stages: Sequence[Stage],
        samples: list[Sample],
        shape: ClipShape,
        *,
        records: Path | None = None,
        deadline_s: float,
    ) -> None:
        self._stages = stages
        self._samples = samples
        self.targets = Targets(session, stages, samples, shape, records, deadline_s=deadline_s)
        prompts = [sample.prompt for sample in samples]
        self.keys = {stage.name: encode_prompts(stage, prompts) for stage in stages}

    def micro_batch(self, order: SampleOrder, places: range) -> MicroBatch:
        """Make the micro-batch of the samples at these places of the training sequence; sends their targets if new."""
        indices = [order.sample_index(place) for place in places]
        seeds = [order.noise_seed(place) for place in places]
        targets = [self.targets.keys(index) for index in indices]
        names = [stage.name for stage in self._stages]
        return MicroBatch(
            prompts={name: tuple(self.keys[name][index] for index in indices) for name in names},
            seeds={name: tuple(self._seed(name, *pair) for pair in zip(indices, seeds, strict=True)) for name in names},
            targets={name: tuple(target[name] for target in targets) for name in targets[0]},
        )

    def _seed(self, agent: str, index: int, seed: int) -> int:
        """The agent's seed for this sample: the one that made the target, if the data set knows it."""
        return self._samples[index].seeds.get(agent, seed)


def encode_prompts(stage: Stage, prompts: Sequence[str]) -> list[str]:
    """Have an agent encode prompts, 16 per call; returns the keys under which it keeps them, in order.

    An agent without text encoder gets the prompts themselves.
    """
    if not stage.interface.has_text:
        return list(prompts)
    keys: list[str] = []
    for start in range(0, len(prompts), PROMPTS_PER_CALL):
        arguments = {"prompts": list(prompts[start : start + PROMPTS_PER_CALL])}
        values = stage.client.call(stage.name, "encode", arguments, deadline_s=stage.deadline_s).values
        found = values.get("keys")
        if not isinstance(found, list):
            raise ProtocolError(f"{stage.name}.encode: expected a list `keys`, got {sorted(values)}")
        keys += [str(key) for key in found]
    return keys


def unload_text_encoders(stages: Sequence[Stage]) -> None:
    """Have every agent free its text encoder, which can be larger than its model."""
    for stage in stages:
        if stage.interface.has_text:
            stage.client.call(stage.name, "unload_text_encoder", {}, deadline_s=stage.deadline_s)


def initial_embeddings(stages: Sequence[Stage], settings: ModulationSettings, *, seed: int) -> dict[str, torch.Tensor]:
    """First value of each z_i by agent, (rows, d_i) float32; empty when modulation is off.

    `learned`: the agent's text encoding of "[Mod]": the rows of all content tokens, their mean, or a new token's row;
    an agent without text encoder chooses its rows itself. `random_init`: one random row (ablation RI).
    """
    if settings.mode == "none":
        return {}
    embeddings: dict[str, torch.Tensor] = {}
    arguments = {"text": settings.text, "new_token": settings.rows == "new_token"}
    for number, stage in enumerate(stage for stage in stages if stage.interface.has_modulation):
        reply = stage.client.call(stage.name, "modulation_rows", arguments, deadline_s=stage.deadline_s)
        found = reply.values.get("rows")
        if not isinstance(found, TensorRef):
            raise ProtocolError(f"{stage.name}.modulation_rows: expected a tensor `rows`, got {sorted(reply.values)}")
        rows = found.tensor().float().clone()
        if rows.ndim != 2 or rows.numel() == 0 or not rows.isfinite().all():
            raise ProtocolError(
                f"{stage.name}.modulation_rows: expected `rows` as finite numbers (rows, d), at least one, got "
                f"{found.dtype} {found.shape}{'' if rows.isfinite().all() else ' with numbers that are not finite'}"
            )
        if settings.mode == "random_init":
            rows = random_rows(rows, seed=seed + number)
        embeddings[stage.name] = rows.mean(dim=0, keepdim=True) if settings.rows == "mean" else rows
    return embeddings


def parameter_rows(
    clients: Mapping[str, Client], rates: Mapping[str, float], *, deadline_s: float
) -> list[tuple[str, str, int, int, float]]:
    """Rows of the table printed at the start: agent, what trains, all and trained parameters, learning rate.

    With LoRA, what trains says how many layers have an adapter.
    """
    rows = []
    for name, client in clients.items():
        values = client.call(PARTICIPANT, "counts", {}, deadline_s=deadline_s).values
        total, trainable = values["num_parameters"], values["num_trainable"]
        if not isinstance(total, int) or not isinstance(trainable, int):
            raise ProtocolError(f"{name}: counts expected two numbers, got {total!r} and {trainable!r}")
        scope, num_layers = str(values["scope"]), values.get("num_adapted_layers")
        rows.append((name, f"{scope}, {num_layers} layers" if num_layers else scope, total, trainable, rates[name]))
    return rows
