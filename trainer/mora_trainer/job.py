"""One coordinator rank's part of a training job: connect, prepare, train, checkpoint, show progress.

Started by `__main__`; every rank runs the same code, rank 0 also writes metrics, samples and the terminal output.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from mora_data.dataset import read_dataset
from mora_data.sample_order import SampleOrder
from mora_runtime import RunDirectory, Session
from mora_runtime.errors import TrainingDiverged, TrainingError
from mora_runtime.process.closed_listeners import close_listeners
from mora_runtime.process.logs import LogFields
from mora_runtime.process.supervisor_link import Vitals
from mora_runtime.trace import tracing
from mora_training.process_group import join_group, make_patient_group
from mora_training.training_settings import GroupSettings

from mora_trainer.chain.generation import ChainGenerator
from mora_trainer.chain.micro_batch import MicroBatch
from mora_trainer.chain.remote_chain import RemoteChain
from mora_trainer.chain.stage import connected_stages
from mora_trainer.checkpoint.checkpointer import Checkpointer
from mora_trainer.checkpoint.commit_record import committed
from mora_trainer.metrics import MetricsLog
from mora_trainer.modulation import Modulation
from mora_trainer.preparation import (
    PROMPTS_PER_CALL,
    Corpus,
    initial_embeddings,
    parameter_rows,
    unload_text_encoders,
)
from mora_trainer.progress import PreparationProgress, TrainingProgress, parameter_table, summary_table
from mora_trainer.samples import SamplePrompt, Sampler, Share
from mora_trainer.schedule import schedule_factor
from mora_trainer.settings import CoordinatorSettings
from mora_trainer.step import JointStep, LearningRates, StepReport
from mora_trainer.torch_profile import TorchProfile

_ZERO_GRADIENT_WARNING = (
    "the gradient of what `{agent}` makes is exactly zero: the loss does not depend on it, so this agent learns "
    "nothing from the loss. The next agent may start from weights that ignore their input, as a freshly initialised "
    "masked-video projection does; start from trained weights"
)
_NOTHING_CHANGED = (
    "{agent}: expected its {number} trained tensors to change, but step {step} changed none of them, so this agent "
    "learns nothing: raise agents.{agent}.learning_rate, or check agents.{agent}.trainable and the gradient_norm of "
    "{agent} in metrics.jsonl"
)
_SLACK_S = 60.0  # over the deadlines of calls, for what a rank does between them


class TrainingJob:
    """One rank of a joint fine-tuning job.

    Args:
        settings: resolved settings of this rank.
        stop_requested: called once per step on rank 0; True ends the job cleanly with a checkpoint.
    """

    def __init__(self, settings: CoordinatorSettings, stop_requested: Callable[[], bool]) -> None:
        self._settings = settings
        self._stop_requested = stop_requested
        self._run = RunDirectory.open(Path(settings.run_dir))
        self._is_first = settings.replica == 0
        self._deadline_s = settings.training.call_deadline_s
        torch.set_num_threads(settings.num_threads)
        join_group(_group_settings(settings), torch.device("cpu"))
        self._samples = read_dataset(Path(settings.dataset))
        # all ranks wait for the slowest one's prompts, targets and samples
        patience_s = _patience_s(settings, len(self._samples))
        self._patient_group = make_patient_group(patience_s) if settings.num_replicas > 1 else None
        close_listeners()
        self._session = Session.open(
            self._run,
            f"coordinator.{settings.replica}",
            settings.generation,
            arena_budget_nbytes=settings.arena_nbytes,
            spill_budget_nbytes=settings.spill_nbytes,
        )
        self._stages = connected_stages(self._session, settings.chain, deadline_s=self._deadline_s)
        # in the order of all sums
        self._clients = {stage.name: stage.client for stage in self._stages if stage.has_optimizer}
        self._torch_profile = TorchProfile(
            {stage.name: stage.client for stage in self._stages},
            settings.torch_trace_step,
            deadline_s=self._deadline_s,
        )
        self._order = SampleOrder(len(self._samples), seed=settings.seed, shuffle=settings.shuffle)
        self._done = 0  # number of steps done, for the heartbeats

    def train(self) -> int:
        """Train to the end, or to a requested stop, and commit the state. Returns the number of steps done."""
        self._prepare()
        progress = TrainingProgress(
            num_steps=self._settings.training.num_steps, first_step=self._first_step, visible=self._is_first
        )
        rates = {stage.name: stage.learning_rate for stage in self._settings.chain}
        progress.console.print(parameter_table(parameter_rows(self._clients, rates, deadline_s=self._deadline_s)))
        self._take_sample("before" if self._first_step == 0 else f"step-{self._first_step}")
        progress.start()
        try:
            done = self._loop(progress)
        finally:
            progress.close()
        finished = done >= self._settings.training.num_steps
        self._take_sample("after" if finished else f"stopped-{done}")
        self._summarise(progress, done, finished)
        return done

    def _prepare(self) -> None:
        settings = self._settings
        initial = self._encode_texts()
        modulation = settings.modulation
        self._modulation = Modulation(initial, modulation.alpha, modulation.optimizer) if initial else None
        close_listeners()  # of the process groups that the modulation's optimizer has made
        chain = RemoteChain(self._stages, pipeline=settings.training.pipeline)
        self._step = JointStep(
            chain,
            self._clients,
            self._modulation,
            clip_norm=settings.training.clip_norm,
            deadline_s=self._deadline_s,
        )
        self._checkpointer = Checkpointer(
            self._run.checkpoints,
            self._clients,
            self._modulation,
            lock_hashes=settings.lock_hashes,
            keep=settings.training.keep_checkpoints,
            deadline_s=self._deadline_s,
        )
        self._first_step = self._done = self._restore() if settings.resume else 0
        self._store_targets()
        self._sampler = self._make_sampler() if settings.samples.enabled else None

    def _encode_texts(self) -> dict[str, torch.Tensor]:
        """Encode all prompts; returns the first value of every z_i.

        Rank 0's agents encode first. The other ranks' agents then find the results in the folder that they share with
        them (`mora_environment.job_folder`), and do not load their text encoders, which may be larger than the models.
        """
        settings = self._settings
        if not self._is_first:
            self._wait_for_all()
        self._corpus = Corpus(
            self._session,
            self._stages,
            self._samples,
            settings.clip,
            records=self._run.path / "cache",
            deadline_s=self._deadline_s,
        )
        initial = initial_embeddings(self._stages, settings.modulation, seed=settings.seed)
        unload_text_encoders(self._stages)
        if self._is_first:
            self._wait_for_all()
        return initial

    def _store_targets(self) -> None:
        """Have the agents store all targets of the job, so that no step waits for one."""
        needed = [self._needed_samples(rank) for rank in range(self._settings.num_replicas)]
        with PreparationProgress("targets", visible=self._is_first) as progress:
            self._corpus.targets.prepare(needed, self._settings.replica, self._wait_for_all, progress.show)
        self._wait_for_all()

    def _needed_samples(self, rank: int) -> list[int]:
        """Indices of the samples of a rank's steps that are still to be done, in the order of their first use."""
        needed: dict[int, None] = {}
        for step in range(self._first_step, self._settings.training.num_steps):
            needed.update(dict.fromkeys(self._order.sample_index(place) for place in self._places(step, rank)))
            if len(needed) == len(self._samples):
                break
        return list(needed)

    def _wait_for_all(self) -> None:
        """Return when every rank has called this."""
        if self._patient_group is not None:
            dist.barrier(group=self._patient_group)

    def _restore(self) -> int:
        info = committed(self._run.checkpoints)
        if info is None:
            return 0
        self._checkpointer.restore(info)
        return info.step

    def _make_sampler(self) -> Sampler:
        number = min(self._settings.samples.num_prompts, len(self._samples))
        prompts = [
            SamplePrompt(
                self._samples[index].prompt,
                {name: keys[index] for name, keys in self._corpus.keys.items()},
                self._samples[index].clip(self._settings.clip),
            )
            for index in range(number)
        ]
        return Sampler(
            ChainGenerator(self._stages),
            prompts,
            fps=self._settings.clip.fps,
            seed=self._settings.samples.seed,
            folder=self._run.samples,
            share=Share(self._settings.replica, self._settings.num_replicas),
        )

    def _take_sample(self, label: str) -> None:
        if self._sampler is None:
            return
        self._sampler.take(label, {} if self._modulation is None else self._modulation.all_embeddings())
        self._wait_for_all()
        if self._is_first:
            self._sampler.draw_sheet()

    def _loop(self, progress: TrainingProgress) -> int:
        """Run steps until the last, or until rank 0 is asked to stop; commits a checkpoint before it returns."""
        training = self._settings.training
        log = MetricsLog(self._run.path, first_step=self._first_step) if self._is_first else None
        num_skips = 0
        step = self._first_step
        last_saved = step if step > 0 else -1
        while step < training.num_steps and not self._agreed_to_stop():
            with (
                self._torch_profile.around(step), tracing.span("step", "protocol", {"step": step}), LogFields(step=step)
            ):  # fmt: skip
                started_s = time.perf_counter()
                rates = self._rates(step)
                report = self._do_step(step, rates)
                step_s = time.perf_counter() - started_s
                progress.step(report, step_s)
                if log is not None:
                    log.write(report, rates, step_s)
                self._warn(report, progress)
                self._tell_changes(report, progress)
                num_skips = num_skips + 1 if report.skipped else 0
                self._done = step = step + 1
                if num_skips >= training.max_consecutive_skips:
                    raise TrainingDiverged(
                        f"gradients were not finite in {num_skips} steps in a row, up to step {report.step}; the "
                        "weights are those of the last finite step: lower the learning rate, or check the data"
                    )
                if training.checkpoint_every and step % training.checkpoint_every == 0:
                    self._checkpointer.begin(step)
                    last_saved = step
                else:
                    self._checkpointer.finish(wait=False)
        if last_saved != step and step > 0:
            self._checkpointer.begin(step)
        self._checkpointer.finish(wait=True)
        if log is not None:
            log.close()
        return step

    def _do_step(self, step: int, rates: LearningRates) -> StepReport:
        with tracing.span("batches", "protocol"):
            batches = self._batches(step)
        return self._step.run(step, batches, rates)

    def _agreed_to_stop(self) -> bool:
        """Share rank 0's stop request with all ranks; if they stopped at different steps, they would deadlock."""
        is_requested = torch.tensor([float(self._is_first and self._stop_requested())])
        dist.all_reduce(is_requested)
        return bool(is_requested.item() > 0)

    def _rates(self, step: int) -> LearningRates:
        training = self._settings.training
        factor = schedule_factor(
            step, kind=training.schedule, num_steps=training.num_steps, num_warmup_steps=training.num_warmup_steps
        )
        chain = self._settings.chain
        return LearningRates(
            {stage.name: factor * stage.learning_rate for stage in chain if stage.has_optimizer},
            {stage.name: factor * stage.modulation_learning_rate for stage in chain if stage.has_optimizer},
        )

    def _batches(self, step: int) -> list[MicroBatch]:
        """This replica's share of the batch of `step`: a contiguous block, split into micro-batches."""
        size = self._settings.training.micro_batch_size
        places = self._places(step, self._settings.replica)
        return [
            self._corpus.micro_batch(self._order, places[start : start + size]) for start in range(0, len(places), size)
        ]

    def _places(self, step: int, rank: int) -> range:
        """A rank's places in the training sequence."""
        training = self._settings.training
        share = training.batch_size // self._settings.num_replicas
        first = step * training.batch_size + rank * share
        return range(first, first + share)

    def _warn(self, report: StepReport, progress: TrainingProgress) -> None:
        for agent, norm in report.output_gradient_norms.items():
            if norm == 0.0 and not report.skipped:
                progress.warn(f"step {report.step + 1}: {_ZERO_GRADIENT_WARNING.format(agent=agent)}")
        if report.skipped:
            progress.warn(f"step {report.step + 1} was skipped: a gradient was not finite; no weight has changed")

    def _tell_changes(self, report: StepReport, progress: TrainingProgress) -> None:
        """Tell how many of the trained tensors the first steps have changed.

        Raises:
            TrainingError: none of an agent's, although the loss depends on what it makes.
        """
        if not report.changes:
            return
        told = (f"{name} {found.num_changed} of {found.num_trained}" for name, found in report.changes.items())
        progress.tell(f"trained tensors that changed by step {report.step + 1}: {', '.join(told)}")
        for name, (num_changed, num_trained) in report.changes.items():
            if num_changed == 0 and report.output_gradient_norms.get(name) != 0.0:
                raise TrainingError(_NOTHING_CHANGED.format(agent=name, step=report.step + 1, number=num_trained))

    def _summarise(self, progress: TrainingProgress, done: int, finished: bool) -> None:
        run = self._run.path
        state = f"finished {done} steps" if finished else f"stopped after {done} steps; --resume continues from there"
        entries: list[tuple[str, Path | str]] = [
            (state, run),
            ("checkpoint", self._run.checkpoints / f"step-{done:08d}" if done else "none"),
            ("metrics", run / "metrics.jsonl"),
            ("curves", f"./mora curves {run}"),
        ]
        if self._sampler is not None:
            entries.append(("samples", self._run.samples / "contact-sheet.png"))
        progress.console.print(summary_table(entries))

    def vitals(self) -> Vitals:
        """Progress of training, for the heartbeats; called by another thread."""
        arena = self._session.store.arena
        return {"step": self._done, "num_leases": arena.num_live, "arena_nbytes": arena.allocated_nbytes}

    def close(self) -> None:
        """Disconnect from the servers and leave the process group."""
        for stage in self._stages:
            stage.client.close()
        self._session.close()
        dist.destroy_process_group()


def _group_settings(settings: CoordinatorSettings) -> GroupSettings:
    """A rank that waits in a collective may wait for a call of another rank, so it waits longer than any call."""
    timeout_s = max(600.0, settings.training.call_deadline_s) + _SLACK_S
    return GroupSettings(
        rank=settings.replica,
        world_size=settings.num_replicas,
        rendezvous=settings.rendezvous,
        timeout_s=timeout_s,
        join_timeout_s=timeout_s,
    )


def _patience_s(settings: CoordinatorSettings, num_samples: int) -> float:
    """The longest that a rank may wait for another one's prompts, targets or samples, whose calls may all be slow."""
    num_agents = len(settings.chain)
    num_prompt_calls = -(-num_samples // PROMPTS_PER_CALL) + 2  # and the first value of z_i, and unloading
    num_sampled = -(-settings.samples.num_prompts // settings.num_replicas)
    num_calls = max(num_prompt_calls, 2 * num_samples, num_sampled) * num_agents
    return num_calls * settings.training.call_deadline_s + _SLACK_S
