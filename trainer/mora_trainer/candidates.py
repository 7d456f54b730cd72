"""Making candidate videos with the chain, between two trainings of a data-free round.

The launcher starts `python -m mora_trainer.candidates --settings FILE --supervisor-fd N` next to servers that train. It
loads a checkpoint's weights into them, but leaves their optimizers and random generators unchanged. A candidate's
folder appears by one rename, so a kill leaves no partial candidate, and a restarted process makes only the missing
ones. The same order gives the same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mora_data.clips import Clip, write_lossless, write_video
from mora_runtime import Client, RunDirectory, Session, TensorRef
from mora_runtime.errors import CheckpointError, MoraError, PeerDied, ProtocolError, StorageError
from mora_runtime.files.durable_files import sha256_of, sync, write_text
from mora_runtime.process.logs import start_logging
from mora_runtime.process.supervisor_link import SupervisorLink
from mora_runtime.schema import settings_from_argv
from mora_training.optimizer_agent import PARTICIPANT
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mora_trainer.candidate_settings import (
    FIRST_FRAME_FILE,
    NOISE_FILE,
    PREVIEW_FILE,
    RECORD_FILE,
    VIDEO_FILE,
    CandidateOrder,
    CandidateSettings,
)
from mora_trainer.chain import AGENTS, IMAGE, VIDEO
from mora_trainer.preparation import encode_prompts, initial_embeddings
from mora_trainer.terminal import Console, clean_tracebacks

_CONNECT_DEADLINE_S = 120.0
EXIT_STOPPED = 3


@dataclass(frozen=True)
class Candidate:
    """The chain's output for one order."""

    frames: Clip
    first_frame: Clip  # (H, W, 3)
    noise: dict[str, torch.Tensor]  # by agent


class CandidateMaker:
    """Makes videos with the agents' current weights.

    Args:
        embeddings: z_i by agent; empty without modulation.
        keys: agent -> prompt -> key of the encoded prompt in that agent.
    """

    def __init__(
        self,
        clients: dict[str, Client],
        embeddings: dict[str, torch.Tensor],
        keys: dict[str, dict[str, str]],
        settings: CandidateSettings,
    ) -> None:
        self._clients = clients
        self._embeddings = embeddings
        self._keys = keys
        self._settings = settings

    def make(self, order: CandidateOrder) -> None:
        """Generate one candidate and write its folder, unless the folder exists.

        Raises:
            StorageError: a write failed; the partial folder is removed.
        """
        target = Path(order.folder)
        if target.is_dir():
            return
        candidate = self._generate(order)
        temporary = target.with_name(f"{target.name}.tmp")
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            _write(temporary, candidate, order, self._settings.clip.fps)
            os.rename(temporary, target)
            sync(target.parent)
        except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
            shutil.rmtree(temporary, ignore_errors=True)
            said = getattr(error, "strerror", None) or error
            raise StorageError(
                f"candidate {target.parent.name}/{target.name}: cannot be written ({said}); complete candidates are "
                "kept: free disk space and run the same command with --resume"
            ) from None

    def _generate(self, order: CandidateOrder) -> Candidate:
        keys = {agent: self._keys[agent][order.prompt] for agent in AGENTS}
        seeds = {IMAGE: order.image_seed, VIDEO: order.video_seed}
        arguments: dict[str, Any] = {
            "z": self._embeddings.get(IMAGE),
            "prompt_keys": [keys[IMAGE]],
            "seeds": [order.image_seed],
            "frame_keys": None,
        }
        image = self._call(IMAGE, "render", arguments, "images")
        pixels = ((image.tensor()[0].float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
        arguments = {
            "z": self._embeddings.get(VIDEO),
            "prompt_key": keys[VIDEO],
            "image": image,
            "seed": order.video_seed,
        }
        frames = np.array(self._call(VIDEO, "animate", arguments, "frames").tensor().cpu().numpy(), dtype=np.uint8)
        noise = {
            agent: self._call(agent, "initial_noise", {"seed": seeds[agent]}, "noise").tensor().clone()
            for agent in AGENTS
        }
        return Candidate(frames, pixels.permute(1, 2, 0).contiguous().cpu().numpy(), noise)

    def _call(self, agent: str, method: str, arguments: dict[str, Any], wanted: str) -> TensorRef:
        reply = self._clients[agent].call(agent, method, arguments, deadline_s=self._settings.call_deadline_s)
        found = reply.values.get(wanted)
        if not isinstance(found, TensorRef):
            raise ProtocolError(f"{agent}.{method}: expected a tensor `{wanted}`, got {sorted(reply.values)}")
        return found


def _write(folder: Path, candidate: Candidate, order: CandidateOrder, fps: float) -> None:
    write_lossless(folder / VIDEO_FILE, candidate.frames, fps)
    write_video(folder / PREVIEW_FILE, candidate.frames, fps)
    Image.fromarray(candidate.first_frame).save(folder / FIRST_FRAME_FILE)
    save_file(candidate.noise, str(folder / NOISE_FILE))
    files = (VIDEO_FILE, FIRST_FRAME_FILE, NOISE_FILE)
    record = {
        "prompt": order.prompt,
        "image_seed": order.image_seed,
        "video_seed": order.video_seed,
        "sha256": {name: sha256_of(folder / name) for name in files},
    }
    for name in (*files, PREVIEW_FILE):
        sync(folder / name)
    write_text(folder / RECORD_FILE, json.dumps(record, indent=1) + "\n")
    sync(folder)


def _embeddings(clients: dict[str, Client], settings: CandidateSettings) -> dict[str, torch.Tensor]:
    if settings.modulation.mode == "none":
        return {}
    # The agents keep these rows, so training, which needs the same ones, does not load the text encoders again.
    initial = initial_embeddings(clients, settings.modulation, seed=settings.seed, deadline_s=settings.call_deadline_s)
    if settings.embeddings is None:
        return initial
    found: dict[str, torch.Tensor] = load_file(settings.embeddings)
    if set(found) != set(AGENTS):
        raise CheckpointError(f"modulation of the checkpoint: expected z of {AGENTS}, got {sorted(found)}")
    return found


def _show_weights(clients: dict[str, Client], settings: CandidateSettings) -> None:
    arguments = {"folder": settings.checkpoint, "average": settings.average}
    pending = [
        clients[agent].submit(PARTICIPANT, "show_weights", arguments, deadline_s=settings.call_deadline_s)
        for agent in AGENTS
    ]
    for call in pending:
        call.result()


def _keys(clients: dict[str, Client], settings: CandidateSettings) -> dict[str, dict[str, str]]:
    """Encode one prompt per call, so that no encoding depends on the others of a batch: a resumed run has fewer."""
    prompts = sorted({order.prompt for order in settings.orders})
    return {
        agent: {
            prompt: encode_prompts(clients[agent], agent, [prompt], settings.call_deadline_s)[0] for prompt in prompts
        }
        for agent in AGENTS
    }


def make_all(settings: CandidateSettings, link: SupervisorLink) -> bool:
    """Make every order; False when asked to stop before the last."""
    torch.set_num_threads(settings.num_threads)
    run = RunDirectory.open(Path(settings.run_dir))
    console = Console(soft_wrap=True)
    with Session.open(
        run,
        settings.role,
        arena_budget_nbytes=settings.arena_nbytes,
        spill_budget_nbytes=settings.spill_nbytes,
    ) as session:
        clients = {
            agent: session.connect(
                settings.servers[agent], deadline_s=_CONNECT_DEADLINE_S, expected_lock_hash=settings.lock_hashes[agent]
            )
            for agent in AGENTS
        }
        _show_weights(clients, settings)
        embeddings = _embeddings(clients, settings)
        maker = CandidateMaker(clients, embeddings, _keys(clients, settings), settings)
        for client, agent in ((clients[agent], agent) for agent in AGENTS):
            client.call(agent, "unload_text_encoder", {}, deadline_s=settings.call_deadline_s)
        link.ready()
        for number, order in enumerate(settings.orders, start=1):
            if link.stop_requested():
                return False
            started_s = time.perf_counter()
            maker.make(order)
            console.print(
                f"candidate {number}/{len(settings.orders)}  {time.perf_counter() - started_s:.1f} s  {order.prompt}",
                markup=False,
            )
    return True


def main() -> int:
    """Make the ordered candidates; 0 = all, 3 = stopped on request, 1 = failed."""
    clean_tracebacks()
    settings, descriptor = settings_from_argv(CandidateSettings)
    link = SupervisorLink(descriptor)
    start_logging(RunDirectory.open(Path(settings.run_dir)), role="candidates", generation=1)
    if not link.wait_for_go():
        return EXIT_STOPPED
    try:
        return 0 if make_all(settings, link) else EXIT_STOPPED
    except MoraError as error:
        link.failed(f"{type(error).__name__}: {error}", is_recoverable=isinstance(error, PeerDied))
        return 1


if __name__ == "__main__":
    sys.exit(main())
