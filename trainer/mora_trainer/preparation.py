"""Preparation between connecting to the servers and the first step: prompts, targets, first value of every z_i."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from mora_data.dataset import Sample, SampleOrder
from mora_data.settings import ClipShape
from mora_runtime import Client, Session, TensorRef
from mora_runtime.errors import ProtocolError
from mora_runtime.trace import tracing
from mora_training.optimizer_agent import PARTICIPANT

from mora_trainer.chain import AGENTS, IMAGE, VIDEO, MicroBatch
from mora_trainer.modulation import random_rows
from mora_trainer.settings import ModulationSettings

_PROMPTS_PER_CALL = 16


class Corpus:
    """The servers' copy of the dataset: keys of encoded prompts, and targets that are sent on first use.

    Args:
        samples: the dataset, in file order.
        needs_frames: send the targets' first frames to the image server, for the image agent's own loss.
    """

    def __init__(
        self,
        session: Session,
        clients: dict[str, Client],
        samples: list[Sample],
        shape: ClipShape,
        *,
        needs_frames: bool,
        deadline_s: float,
    ) -> None:
        self._session = session
        self._clients = clients
        self._samples = samples
        self._shape = shape
        self._needs_frames = needs_frames
        self._deadline_s = deadline_s
        self._clips: dict[int, Future[npt.NDArray[np.uint8]]] = {}  # decoded ahead of their first use
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="decoder")
        self._targets: dict[int, str] = {}
        self._frames: dict[int, str] = {}
        prompts = [sample.prompt for sample in samples]
        self.keys = {name: encode_prompts(clients[name], name, prompts, deadline_s) for name in AGENTS}

    def micro_batch(self, order: SampleOrder, places: range) -> MicroBatch:
        """Make the micro-batch of the samples at these places of the training sequence; sends their targets if new."""
        indices = [order.sample_index(place) for place in places]
        seeds = tuple(order.noise_seed(place) for place in places)
        return MicroBatch(
            image_prompts=tuple(self.keys[IMAGE][index] for index in indices),
            video_prompts=tuple(self.keys[VIDEO][index] for index in indices),
            targets=tuple(self._target(index) for index in indices),
            frames=tuple(self._frames[index] for index in indices) if self._needs_frames else (),
            seeds=seeds,
            image_seeds=tuple(map(self._image_seed, indices, seeds)),
        )

    def _image_seed(self, index: int, seed: int) -> int:
        known = self._samples[index].image_seed
        return seed if known is None else known

    def decode_ahead(self, order: SampleOrder, places: range) -> None:
        """Begin to decode the clips of these places that no server has yet, for a later `micro_batch`."""
        for index in {order.sample_index(place) for place in places}:
            if index not in self._targets and index not in self._clips:
                self._clips[index] = self._decoder.submit(self._decode, index)

    def _decode(self, index: int) -> npt.NDArray[np.uint8]:
        with tracing.span("decode clip", "io"):
            return self._samples[index].clip(self._shape)

    def _target(self, index: int) -> str:
        if index not in self._targets:
            ahead = self._clips.pop(index, None)
            with tracing.span("wait for the decoder", "wait"):
                clip = self._decode(index) if ahead is None else ahead.result(self._deadline_s)
            pixels = self._session.empty(clip.shape, torch.uint8)
            pixels.copy_(torch.from_numpy(np.ascontiguousarray(clip)))
            self._targets[index] = self._store(VIDEO, "store_target", pixels)
            if self._needs_frames:
                self._frames[index] = self._store(IMAGE, "store_frame", pixels[0].clone())
        return self._targets[index]

    def _store(self, agent: str, method: str, pixels: torch.Tensor) -> str:
        reply = self._clients[agent].call(agent, method, {"pixels": pixels}, deadline_s=self._deadline_s)
        return str(reply.values["key"])


def encode_prompts(client: Client, agent: str, prompts: Sequence[str], deadline_s: float) -> list[str]:
    """Have an agent encode prompts, 16 per call; returns the keys under which it keeps them, in order."""
    keys: list[str] = []
    for start in range(0, len(prompts), _PROMPTS_PER_CALL):
        arguments = {"prompts": list(prompts[start : start + _PROMPTS_PER_CALL])}
        values = client.call(agent, "encode", arguments, deadline_s=deadline_s).values
        found = values.get("keys")
        if not isinstance(found, list):
            raise ProtocolError(f"{agent}.encode: expected a list `keys`, got {sorted(values)}")
        keys += [str(key) for key in found]
    return keys


def initial_embeddings(
    clients: dict[str, Client], settings: ModulationSettings, *, seed: int, deadline_s: float
) -> dict[str, torch.Tensor]:
    """First value of each z_i by agent, (rows, d_i) float32; empty when modulation is off.

    `learned`: the agent's text encoding of "[Mod]": the rows of all content tokens, their mean, or a new token's row;
    `random_init`: one random row (ablation RI).
    """
    if settings.mode == "none":
        return {}
    embeddings: dict[str, torch.Tensor] = {}
    arguments = {"text": settings.text, "new_token": settings.rows == "new_token"}
    for number, name in enumerate(AGENTS):
        reply = clients[name].call(name, "modulation_rows", arguments, deadline_s=deadline_s)
        found = reply.values["rows"]
        if not isinstance(found, TensorRef):
            raise ProtocolError(f"{name}.modulation_rows: expected a tensor `rows`")
        rows = found.tensor().float().clone()
        if settings.mode == "random_init":
            rows = random_rows(rows, seed=seed + number)
        embeddings[name] = rows.mean(dim=0, keepdim=True) if settings.rows == "mean" else rows
    return embeddings


def parameter_rows(
    clients: dict[str, Client], rates: dict[str, float], *, deadline_s: float
) -> list[tuple[str, str, int, int, float]]:
    """Rows of the table printed at the start: agent, what trains, all and trained parameters, learning rate."""
    rows = []
    for name in AGENTS:
        values = clients[name].call(PARTICIPANT, "counts", {}, deadline_s=deadline_s).values
        total, trainable = values["num_parameters"], values["num_trainable"]
        if not isinstance(total, int) or not isinstance(trainable, int):
            raise ProtocolError(f"{name}: counts expected two numbers, got {total!r} and {trainable!r}")
        rows.append((name, str(values["scope"]), total, trainable, rates[name]))
    return rows
