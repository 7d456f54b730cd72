"""A run whose judges disagree on every set, and the decisions on its sets."""

from pathlib import Path

from mora_launch.config.train_config import load_config
from mora_launch.environments.venvs import ROOT
from mora_launch.rounds.judging.judge import Verdict
from mora_launch.rounds.store import RoundFolder, write_once

from tests.unit.launch.hand_made_round import make_round

CONFIG = load_config(ROOT / "configs" / "tiny-rounds.yaml", ["synthesis.num_candidates=2"])
NUM_SETS = 3


def make_undecided_round(run: Path) -> Path:
    """Three sets of two candidates each, all for a person."""
    path = make_round(run, CONFIG.clip, num_sets=NUM_SETS)
    write_once(path / "config.json", CONFIG.model_dump(mode="json"))
    for index in range(NUM_SETS):
        for number, ranking in enumerate(((0, 1), (1, 0))):
            verdict = Verdict(f"judge {number}", "flicker", (0, 1), ranking, ("raw",))
            RoundFolder(path, 1).set(index).write_verdict(number, verdict)
    return path


def decided(run: Path) -> list[tuple[int | None, str | None] | None]:
    """(candidate, reviewer) of every set; None where it is undecided."""
    found = [RoundFolder(run, 1).set(index).decision() for index in range(NUM_SETS)]
    return [None if decision is None else (decision.chosen, decision.reviewer) for decision in found]
