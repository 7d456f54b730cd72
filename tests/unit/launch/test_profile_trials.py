"""`mora profile --try`: an advice is given only if steps were faster with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hand_made_trace import one_step
from mora_launch.config.train_config import TrainConfig, load_config
from mora_launch.environments.venvs import ROOT
from mora_launch.profiling.advice import Advice
from mora_launch.profiling.report.summary import summarise
from mora_launch.profiling.report.terminal import print_summary
from mora_launch.profiling.trial import MAX_NUM_TRIED, Trial, tried
from rich.console import Console

CONFIG = load_config(ROOT / "configs" / "tiny.yaml", [])
SIZE = Advice("training.micro_batch_size: 4 -> 2", 0.1, 0.1, "", "training.micro_batch_size=2")
FLIGHT = Advice("training.pipeline.max_in_flight: 3 -> 4", 0.05, 0.05, "", "training.pipeline.max_in_flight=4")
MACHINE = Advice("(machine) fewer other processes", 0.2, 0.2, "")


class Job:
    """Runs no job: tells the time of a step by configuration, and records what was run."""

    def __init__(self, **step_s: float) -> None:
        self.step_s = step_s
        self.ran: list[str] = []

    def run(self, config: TrainConfig) -> list[float]:
        in_flight = config.training.pipeline.max_in_flight
        name = "size" if config.training.micro_batch_size == 2 else "flight" if in_flight == 4 else "own"
        self.ran.append(name)
        return [self.step_s[name]] * 3


def test_advices_are_tried_by_turns_until_one_is_faster() -> None:
    job = Job(own=1.0, size=1.2, flight=0.9)
    found = tried(CONFIG, [MACHINE, SIZE, FLIGHT], [1.0], job.run)
    assert job.ran == ["size", "own", "size", "flight", "own", "flight"], "a change of the machine cannot be tried"
    assert [(trial.change, trial.is_faster) for trial in found] == [(SIZE.change, False), (FLIGHT.change, True)]
    assert str(found[1]) == "training.pipeline.max_in_flight: 3 -> 4: 1.000 -> 0.900 s a step, 10% faster"
    assert "not faster, not advised" in str(found[0])


def test_the_first_faster_advice_ends_the_trials_and_there_are_at_most_three() -> None:
    job = Job(own=1.0, size=0.8, flight=0.5)
    assert [trial.after_s for trial in tried(CONFIG, [SIZE, FLIGHT], [1.0], job.run)] == [0.8]
    assert len(tried(CONFIG, [SIZE] * 9, [1.0], Job(own=1.0, size=2.0).run)) == MAX_NUM_TRIED


def summary(*trials: Trial) -> dict[str, Any]:
    config = load_config(ROOT / "configs" / "tiny.yaml", ["training.pipeline.max_in_flight=1"])
    return summarise(one_step(), config, torch_step=None, num_cores=8, trials=trials)


def test_a_refuted_advice_is_no_longer_given_and_a_measured_one_comes_first(tmp_path: Path) -> None:
    advised = [advice["change"] for advice in summary()["advice"]]
    assert len(advised) >= 2
    refuted = summary(Trial(advised[0], 1.0, 1.1))
    assert [advice["change"] for advice in refuted["advice"]] == advised[1:]
    assert refuted["tried"] == [{"change": advised[0], "before_s": 1.0, "after_s": 1.1, "is_faster": False}]
    confirmed = summary(Trial(advised[0], 1.0, 1.1), Trial(advised[1], 1.0, 0.75))
    assert confirmed["advice"][0]["change"] == advised[1]
    with open(tmp_path / "said", "w", encoding="utf-8") as file:
        print_summary(confirmed, Console(file=file, width=200))
    said = (tmp_path / "said").read_text(encoding="utf-8")
    assert f"{advised[1]}  measured 25%" in said
    assert advised[0] not in said


def test_advices_that_rest_on_an_assumption_come_last() -> None:
    order = [advice["is_assumed"] for advice in summary()["advice"]]
    assert order == sorted(order)
