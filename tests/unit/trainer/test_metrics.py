"""`metrics.jsonl` has every step once, also after steps that are repeated and a death in the middle of a line."""

import json
import os
from pathlib import Path

import pytest
from mora_runtime.errors import StorageError
from mora_trainer import metrics
from mora_trainer.metrics import MetricsLog, read_metrics
from mora_trainer.step import LearningRates, StepReport

RATES = LearningRates({"image": 1e-3}, {"image": 1e-2})


def report(step: int, loss: float) -> StepReport:
    return StepReport(
        step=step, loss=loss, losses={"image": loss}, skipped=False, clip=1.0, gradient_norm=1.0,
        gradient_norms={"image": 1.0}, output_gradient_norms={}, norms={"image": 1.0}, alphas={"image": 0.5},
        breakdown_s={},
    )  # fmt: skip


def write(run: Path, first_step: int, losses: list[float]) -> None:
    log = MetricsLog(run, first_step=first_step)
    for step, loss in enumerate(losses, start=first_step):
        log.write(report(step, loss), RATES, 0.1)
    log.close()


def steps(run: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines]


def test_steps_that_are_repeated_after_the_checkpoint_replace_those_before(tmp_path: Path) -> None:
    write(tmp_path, 0, [5.0, 4.0, 3.0, 2.0])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "loss": 1.')  # its writer was killed
    write(tmp_path, 2, [3.5, 2.5, 1.5])
    assert steps(tmp_path) == [(0, 5.0), (1, 4.0), (2, 3.5), (3, 2.5), (4, 1.5)]


def test_a_start_without_a_checkpoint_begins_again(tmp_path: Path) -> None:
    write(tmp_path, 0, [5.0, 4.0])
    write(tmp_path, 0, [6.0])
    assert steps(tmp_path) == [(0, 6.0)]


def test_a_death_while_old_steps_are_removed_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 0, [5.0, 4.0, 3.0])

    def die(path: Path, text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(metrics, "replace_text", die)
    with pytest.raises(KeyboardInterrupt):
        MetricsLog(tmp_path, first_step=2)
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [0, 1, 2]


@pytest.mark.parametrize("content", ["huge", "no json\n"])
def test_a_file_that_mora_did_not_write_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(content)
    if content == "huge":
        os.truncate(path, 20 << 30)  # sparse
    with pytest.raises(StorageError, match=r"metrics\.jsonl: cannot be read \(.*; move it away"):
        read_metrics(path)
