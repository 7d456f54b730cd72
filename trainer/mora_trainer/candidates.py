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
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mora_data.video_writer import write_lossless, write_video
from mora_runtime import RunDirectory, Session
from mora_runtime.errors import CheckpointError, MoraError, PeerDied, StorageError
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
from mora_trainer.chain.generation import ChainGenerator, Made
from mora_trainer.chain.stage import Stage, connected_stages
from mora_trainer.preparation import encode_prompts, initial_embeddings, unload_text_encoders
from mora_trainer.terminal import Console, clean_tracebacks

EXIT_STOPPED = 3


class CandidateMaker:
    """Makes videos with the agents' current weights.

    Args:
        embeddings: z_i by agent; empty without modulation.
        keys: agent -> prompt -> key of the encoded prompt in that agent.
        fps: of the written videos.
    """

    def __init__(
        self,
        generator: ChainGenerator,
        embeddings: Mapping[str, torch.Tensor],
        keys: Mapping[str, Mapping[str, str]],
        fps: float,
    ) -> None:
        self._generator = generator
        self._embeddings = embeddings
        self._keys = keys
        self._fps = fps

    def make(self, order: CandidateOrder) -> None:
        """Generate one candidate and write its folder, unless the folder exists.

        Raises:
            StorageError: a write failed; the partial folder is removed.
        """
        target = Path(order.folder)
        if target.is_dir():
            return
        keys = {agent: keys[order.prompt] for agent, keys in self._keys.items()}
        made = self._generator.make(keys, order.seeds, self._embeddings)
        noise = self._generator.initial_noise(order.seeds)
        temporary = target.with_name(f"{target.name}.tmp")
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            _write(temporary, made, noise, order, self._fps)
            os.rename(temporary, target)
            sync(target.parent)
        except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
            shutil.rmtree(temporary, ignore_errors=True)
            said = getattr(error, "strerror", None) or error
            raise StorageError(
                f"candidate {target.parent.name}/{target.name}: cannot be written ({said}); complete candidates are "
                "kept: free disk space and run the same command with --resume"
            ) from None


def _write(folder: Path, made: Made, noise: dict[str, torch.Tensor], order: CandidateOrder, fps: float) -> None:
    write_lossless(folder / VIDEO_FILE, made.clip, fps)
    write_video(folder / PREVIEW_FILE, made.clip, fps)
    Image.fromarray(made.first_frame).save(folder / FIRST_FRAME_FILE)
    save_file(noise, str(folder / NOISE_FILE))
    files = (VIDEO_FILE, FIRST_FRAME_FILE, NOISE_FILE)
    record = {
        "prompt": order.prompt,
        "seeds": order.seeds,
        "sha256": {name: sha256_of(folder / name) for name in files},
    }
    for name in (*files, PREVIEW_FILE):
        sync(folder / name)
    write_text(folder / RECORD_FILE, json.dumps(record, indent=1) + "\n")
    sync(folder)


def _embeddings(stages: Sequence[Stage], settings: CandidateSettings) -> dict[str, torch.Tensor]:
    # The agents keep these rows, so training, which needs the same ones, does not load the text encoders again.
    initial = initial_embeddings(stages, settings.modulation, seed=settings.seed)
    if settings.embeddings is None or not initial:
        return initial
    found: dict[str, torch.Tensor] = load_file(settings.embeddings)
    if set(found) != set(initial):
        raise CheckpointError(
            f"modulation of the checkpoint: expected z of {', '.join(initial)}, got {', '.join(sorted(found))}"
        )
    return found


def _show_weights(stages: Sequence[Stage], settings: CandidateSettings) -> None:
    arguments = {"folder": settings.checkpoint, "average": settings.average}
    pending = [
        stage.client.submit(PARTICIPANT, "show_weights", arguments, deadline_s=stage.deadline_s)
        for stage in stages
        if stage.has_optimizer
    ]
    for call in pending:
        call.result()


def _keys(stages: Sequence[Stage], settings: CandidateSettings) -> dict[str, dict[str, str]]:
    """Encode one prompt per call, so that no encoding depends on the others of a batch: a resumed run has fewer."""
    prompts = sorted({order.prompt for order in settings.orders})
    return {stage.name: {prompt: encode_prompts(stage, [prompt])[0] for prompt in prompts} for stage in stages}


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
        stages = connected_stages(session, settings.chain, deadline_s=settings.call_deadline_s)
        _show_weights(stages, settings)
        embeddings = _embeddings(stages, settings)
        generator = ChainGenerator(stages)
        maker = CandidateMaker(generator, embeddings, _keys(generator.stages, settings), settings.clip.fps)
        unload_text_encoders(stages)
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
