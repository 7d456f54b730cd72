"""The rounds of a run as a state machine: every state is read from disk (`store.py`), every step may be interrupted.

plan -> candidates -> verdicts -> decisions -> dataset -> training -> report, then the next round with the new model.
Started again after anything, it does what is not there yet. Everything is a pure function of configuration and seed,
people's decisions aside, so an interrupted run gives the same manifest and the same weights as one that was not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from mora_data.clips import read_clip
from mora_data.reading.fitting import Clip
from mora_runtime.errors import DatasetError, RoundError
from mora_runtime.process.run_directory import RunDirectory
from mora_trainer.candidate_settings import CandidateOrder
from rich.console import Console

from mora_launch.checkpoints.trained_model import TrainedModel, trained_model, untrained_sha256
from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.agent_options import CheckedOptions
from mora_launch.jobs.job_servers import JobServers
from mora_launch.rounds.decisions import decide, decide_by_rule
from mora_launch.rounds.evaluation import EVALUATION
from mora_launch.rounds.evaluation_metrics import held_out_metrics
from mora_launch.rounds.generation import VideoMaking
from mora_launch.rounds.judging.criteria import CRITERIA
from mora_launch.rounds.judging.judge import Interrupted, Judge, ask
from mora_launch.rounds.judging.judge_device import is_of_agents, needs_device_of_agents
from mora_launch.rounds.judging.judges import judged_criteria
from mora_launch.rounds.prompting.held_out import held_out_prompts
from mora_launch.rounds.prompting.prompts import new_prompts
from mora_launch.rounds.report import write_report
from mora_launch.rounds.store import Plan, PlannedSet, RoundFolder, SetFolder
from mora_launch.rounds.training import train_round


class WaitsForReview(Exception):
    """Judges disagree, and a person has to decide before the round can train."""

    def __init__(self, number: int, undecided: Sequence[int]) -> None:
        super().__init__(f"round {number}: {len(undecided)} set(s) wait for review")
        self.round = number
        self.undecided = list(undecided)


class RoundRunner:
    """Runs every round of one run directory, from where the last command left it.

    Args:
        checked: every agent's options, as `check_agents` returns them.
        judges: the two judges.
        servers: of the configuration, used for candidates, training and evaluation of all rounds.
    """

    def __init__(
        self,
        config: TrainConfig,
        checked: Mapping[str, CheckedOptions],
        directory: RunDirectory,
        judges: tuple[Judge, Judge],
        servers: JobServers,
        console: Console,
    ) -> None:
        self._config = config
        self._checked = checked
        self._synthesis = config.synthesis
        self._directory = directory
        self._judges = judges
        self._criteria = judged_criteria(config.synthesis, judges)
        self._servers = servers
        self._videos = VideoMaking(config, directory, servers, console)
        self._metrics = held_out_metrics(directory.path, config, console)
        self._console = console

    def run(self) -> None:
        """Do everything that is not done yet.

        Raises:
            Interrupted, WaitsForReview: not done; the same command goes on from here.
        """
        self._evaluate(0)
        for number in range(1, self._synthesis.num_rounds + 1):
            folder = RoundFolder(self._directory.path, number)
            if folder.trained() is None:
                self._round(folder)
            trained = folder.trained()
            assert trained is not None
            self._evaluate(int(trained["step"]))
            write_report(self._directory.path, folder, self._config)

    def _round(self, folder: RoundFolder) -> None:
        plan = folder.plan() or self._plan(folder)
        self._say(folder, f"{len(plan.sets)} prompts, {self._synthesis.num_candidates} candidates each")
        self._make_candidates(folder, plan)
        self._judge(folder, plan)
        write_report(self._directory.path, folder, self._config)
        undecided = [index for index in range(len(plan.sets)) if folder.set(index).decision() is None]
        if undecided:
            raise WaitsForReview(folder.number, undecided)
        num_samples = folder.write_manifest(plan, self._config.chain_names[:-1])
        self._say(folder, f"{num_samples} of {len(plan.sets)} sets go into training")
        if num_samples == 0:
            self._say(folder, "every set was dropped; the model stays as it is")
            folder.write_trained({"step": plan.first_step, "num_samples": 0})
            return
        if not train_round(self._config, self._directory, self._servers, folder.dataset, plan.last_step, self._console):
            raise Interrupted
        model = trained_model(self._directory.path, plan.last_step)
        folder.write_trained({"step": plan.last_step, "num_samples": num_samples, "weights_sha256": model.sha256})

    def _say(self, folder: RoundFolder, text: str) -> None:
        self._console.print(f"round {folder.number}/{self._synthesis.num_rounds}: {text}", markup=False)

    # --- plan ---

    def _plan(self, folder: RoundFolder) -> Plan:
        first_step = self._step_before(folder.number)
        model = self._model(first_step)
        prompts = new_prompts(
            self._synthesis.prompts,
            number=self._synthesis.prompts_per_round,
            seed=f"{self._config.seed}/prompts/{folder.number}",
            used=[*self._used_prompts(folder.number), *held_out_prompts(self._config)],
        )
        sets = tuple(self._planned(folder.number, index, prompt) for index, prompt in enumerate(prompts))
        plan = Plan(
            round=folder.number,
            first_step=first_step,
            last_step=first_step + self._config.training.num_steps,
            weights_sha256=untrained_sha256(self._checked) if model is None else model.sha256,
            sets=sets,
        )
        folder.write_plan(plan)
        return plan

    def _planned(self, number: int, index: int, prompt: str) -> PlannedSet:
        seed = f"{self._config.seed}/{number}/{index}"
        criterion = self._criteria[_number(f"{seed}/criterion") % len(self._criteria)]
        seeds = tuple(_number(f"{seed}/{candidate}") for candidate in range(self._synthesis.num_candidates))
        return PlannedSet(prompt, criterion, seeds)

    def _step_before(self, number: int) -> int:
        if number == 1:
            return 0
        trained = RoundFolder(self._directory.path, number - 1).trained()
        assert trained is not None
        return int(trained["step"])

    def _used_prompts(self, before: int) -> list[str]:
        plans = [RoundFolder(self._directory.path, number).plan() for number in range(1, before)]
        return [planned.prompt for plan in plans if plan is not None for planned in plan.sets]

    def _model(self, step: int) -> TrainedModel | None:
        if step == 0:
            return None
        average = self._synthesis.weights == "average"
        return trained_model(self._directory.path, step, average=average)

    # --- candidates ---

    def _make_candidates(self, folder: RoundFolder, plan: Plan) -> None:
        orders = [
            CandidateOrder(
                prompt=planned.prompt,
                seeds=dict.fromkeys(self._config.chain_names, seed),
                folder=str(folder.set(index).candidate(number)),
            )
            for index, planned in enumerate(plan.sets)
            for number, seed in enumerate(planned.seeds)
        ]
        self._make(plan.first_step, orders)

    def _make(self, step: int, orders: list[CandidateOrder]) -> None:
        if all(Path(order.folder).is_dir() for order in orders):
            return
        if not self._videos.make(self._model(step), orders):
            raise Interrupted

    def _evaluate(self, step: int) -> None:
        """Videos of the held-out prompts with the model after `step` steps; skipped where that model is gone."""
        if step > 0 and not (self._directory.checkpoints / f"step-{step:08d}").is_dir():
            return
        target = self._directory.path / EVALUATION / f"step-{step:08d}"
        orders = [
            CandidateOrder(
                prompt=prompt,
                seeds=dict.fromkeys(self._config.chain_names, _number(f"{self._config.seed}/held out/{index}")),
                folder=str(target / f"{index:03d}" / "candidate-0"),
            )
            for index, prompt in enumerate(held_out_prompts(self._config))
        ]
        self._make(step, orders)
        self._measure()

    def _measure(self) -> None:
        """Measure the held-out videos of all steps that have no result yet."""
        if not self._metrics.has_work():
            return
        if any(is_of_agents(device, self._config) for device in self._metrics.devices):
            self._servers.end()  # and what needs them next loads their models again
        try:
            self._metrics.measure()
        except KeyboardInterrupt:
            raise Interrupted from None

    # --- verdicts and decisions ---

    def _judge(self, folder: RoundFolder, plan: Plan) -> None:
        """One judge after the other, so that a model on this machine need not share it with another one."""
        undecided = [index for index in range(len(plan.sets)) if folder.set(index).decision() is None]
        for number, judge in enumerate(self._judges):
            unasked = [index for index in undecided if folder.set(index).verdict(number) is None]
            if not unasked:
                continue
            if needs_device_of_agents(self._synthesis.judges[number], self._config):
                self._servers.end()  # and what needs them next loads their models again
            with judge.session(self._directory):
                for index in unasked:
                    self._ask(folder, plan.sets[index], index, number)
        for index in undecided:
            self._decide(folder.set(index), len(plan.sets[index].seeds))

    def _ask(self, folder: RoundFolder, planned: PlannedSet, index: int, number: int) -> None:
        verdict = ask(
            self._judges[number],
            prompt=planned.prompt,
            criterion_name=planned.criterion,
            criterion=CRITERIA[planned.criterion],
            clips=[self._clip(folder, index, candidate) for candidate in range(len(planned.seeds))],
            seed=f"{self._config.seed}/{folder.number}/{index}/judge {number}",
        )
        folder.set(index).write_verdict(number, verdict)
        if verdict.ranking is None:
            self._say(folder, f"set {index + 1}: {verdict.judge} abstains: {verdict.note}")

    def _decide(self, files: SetFolder, num_candidates: int) -> None:
        verdicts = [verdict for verdict in (files.verdict(0), files.verdict(1)) if verdict is not None]
        decision = decide(verdicts)
        if decision is None and self._synthesis.review == "off":
            decision = decide_by_rule(verdicts, num_candidates)
        if decision is not None:
            files.write_decision(decision)

    def _clip(self, folder: RoundFolder, index: int, candidate: int) -> Clip:
        path = folder.set(index).video(candidate)
        try:
            return read_clip(path, self._config.clip)
        except DatasetError as error:
            raise RoundError(
                f"round {folder.number}, set {index + 1}: candidate {candidate + 1} cannot be judged ({error}); remove "
                f"its folder {path.parent}, and --resume makes the same candidate again"
            ) from None


def _number(text: str) -> int:
    """A 63-bit number that is a pure function of the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
