"""A run's rounds on disk. Every fact is one file, written completely by one rename, and never written twice.

    rounds/01/plan.json                      prompts, seeds, criterion of each set; the model for the candidates
    rounds/01/sets/003/candidate-2/          frames.mkv, video.mp4, first-frame.png, noise.safetensors, candidate.json
    rounds/01/sets/003/verdict-0.json        first judge: raw answers, order shown, ranking
    rounds/01/sets/003/decision.json         the chosen candidate, and who decided: judges, a reviewer, a rule
    rounds/01/dataset.jsonl, manifest.json   the training data, and the origin of every part of it
    rounds/01/trained.json                   step of the checkpoint that is the next round's model
    rounds/01/report.html
    evaluation/step-00000004/000/candidate-0/   held-out prompts with the model after 4 steps
    evaluation/metrics/                         results of `synthesis.evaluation_metrics`, and values of each step

A missing file means that its work is not done. The state of a run is read from its files, so it can be killed anywhere.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from mora_runtime.errors import RoundError, StorageError
from mora_runtime.files.durable_files import replace_text, sha256_of
from mora_runtime.files.foreign_file import read_foreign
from mora_runtime.files.foreign_json import parse_object
from mora_runtime.files.shown_text import shown_line
from mora_trainer.candidate_settings import PREVIEW_FILE, RECORD_FILE, VIDEO_FILE
from pydantic import StringConstraints, TypeAdapter, ValidationError

from mora_launch.limits import MAX_RECORD_NBYTES
from mora_launch.rounds.judging.judge import Verdict

_PlainName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
_Kind = TypeVar("_Kind")


def write_once(path: Path, content: Mapping[str, Any] | str) -> None:
    """Write a file completely or not at all, and sync it. Raises: StorageError: the write failed."""
    text = content if isinstance(content, str) else json.dumps(content, indent=1, sort_keys=True) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, text)
    except OSError as error:
        what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
        raise StorageError(
            f"{path}: cannot be written ({what}); all complete files are kept: free disk space and run the same "
            "command with --resume"
        ) from None


class _MissingRecord(RoundError):
    """The file is not there."""


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that `write_once` wrote. Raises: RoundError: it is missing, or no valid JSON."""
    try:
        return parse_object(read_foreign(path, MAX_RECORD_NBYTES))
    except FileNotFoundError:
        raise _MissingRecord(f"{path}: does not exist; --resume makes it again") from None
    except (OSError, ValueError) as error:
        raise RoundError(f"{path}: cannot be read ({error}); remove it, then --resume makes it again") from None


def _read(kind: type[_Kind], path: Path) -> _Kind:
    """Read a file as a value of `kind`. Raises: RoundError: a field is missing or has the wrong type."""
    try:
        return TypeAdapter(kind).validate_python(read_json(path))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "it"
        raise RoundError(
            f"{path}: {shown_line(where, 80)}: {fault['msg']}; it was not written by Mora: remove it, then --resume "
            "makes it again"
        ) from None


@dataclass(frozen=True)
class SetDecision:
    """The decision about a set."""

    chosen: int | None  # candidate; None = the set is dropped
    decided_by: str  # judges, rule, reviewer
    reviewer: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class PlannedSet:
    """One prompt of a round."""

    prompt: str
    criterion: str
    seeds: tuple[int, ...]  # one per candidate, for both agents


@dataclass(frozen=True)
class Plan:
    """The plan of a round, fixed before its first candidate."""

    round: int
    first_step: int  # number of training steps of the model that makes the candidates
    last_step: int  # number of training steps after the round
    weights_sha256: dict[str, str]
    sets: tuple[PlannedSet, ...]


@dataclass(frozen=True)
class _Record:
    """A candidate's record of how it was made."""

    seeds: dict[str, int]  # by agent
    sha256: dict[_PlainName, str]  # of its files


@dataclass(frozen=True)
class SetFolder:
    """The files of one prompt."""

    path: Path

    def candidate(self, number: int) -> Path:
        """Return the folder of a candidate."""
        return self.path / f"candidate-{number}"

    def video(self, number: int) -> Path:
        """Return the path of a candidate's video."""
        return self.candidate(number) / VIDEO_FILE

    def preview(self, number: int) -> Path:
        """Return the path of a candidate's video for browsers."""
        return self.candidate(number) / PREVIEW_FILE

    def verdict(self, judge: int) -> Verdict | None:
        """Read a judge's verdict, or None."""
        path = self._verdict_file(judge)
        if not path.exists():
            return None
        return _read(Verdict, path)

    def write_verdict(self, judge: int, verdict: Verdict) -> None:
        """Write a judge's verdict."""
        write_once(self._verdict_file(judge), asdict(verdict))

    def _verdict_file(self, judge: int) -> Path:
        return self.path / f"verdict-{judge}.json"

    @property
    def decision_file(self) -> Path:
        """Path of the decision, which may not exist yet."""
        return self.path / "decision.json"

    def decision(self) -> SetDecision | None:
        """Read the decision about the set, or None. A reviewer in another process may take it back at any moment."""
        try:
            return _read(SetDecision, self.decision_file)
        except _MissingRecord:
            return None

    def write_decision(self, decision: SetDecision) -> None:
        """Decide."""
        write_once(self.decision_file, asdict(decision))


class RoundFolder:
    """The files of one round."""

    def __init__(self, run: Path, number: int) -> None:
        self.run = run
        self.number = number
        self.path = run / "rounds" / f"{number:02d}"

    def plan(self) -> Plan | None:
        """Read the plan, or None."""
        path = self.path / "plan.json"
        if not path.exists():
            return None
        return _read(Plan, path)

    def write_plan(self, plan: Plan) -> None:
        """Write the plan."""
        write_once(self.path / "plan.json", asdict(plan))

    def set(self, index: int) -> SetFolder:
        """Return the files of one prompt."""
        return SetFolder(self.path / "sets" / f"{index:03d}")

    @property
    def dataset(self) -> Path:
        """Path of the training data, JSON lines in the trainer's format."""
        return self.path / "dataset.jsonl"

    @property
    def manifest(self) -> Path:
        """Path of the record of where every part of the dataset came from."""
        return self.path / "manifest.json"

    @property
    def report(self) -> Path:
        """Path of the report."""
        return self.path / "report.html"

    def trained(self) -> dict[str, Any] | None:
        """Read the result of training the round, or None."""
        try:
            return read_json(self.path / "trained.json")
        except _MissingRecord:
            return None

    def write_trained(self, content: Mapping[str, Any]) -> None:
        """Write the result of training, which completes the round."""
        write_once(self.path / "trained.json", content)

    def write_manifest(self, plan: Plan, makers: Sequence[str]) -> int:
        """Write dataset and manifest of all chosen candidates; return the number of samples.

        Args:
            makers: agents that start from the same noise in training as when they made the target.

        Raises:
            RoundError: a set is undecided, or a chosen video is missing or changed.
        """
        samples, lines, dropped = [], [], []
        for index, planned in enumerate(plan.sets):
            folder = self.set(index)
            decision = folder.decision()
            if decision is None:
                raise RoundError(f"round {self.number}: set {index} is not decided yet")
            if decision.chosen is None:
                dropped.append({"set": index, "prompt": planned.prompt, **asdict(decision)})
                continue
            samples.append(self._sample(index, planned, decision))
            lines.append(
                {
                    "prompt": planned.prompt,
                    "video": str(folder.video(decision.chosen).relative_to(self.path)),
                    "seeds": dict.fromkeys(makers, planned.seeds[decision.chosen]),
                }
            )
        write_once(self.dataset, "".join(json.dumps(line) + "\n" for line in lines))
        content = {
            "round": self.number,
            "model": {"step": plan.first_step, "weights_sha256": plan.weights_sha256},
            "samples": samples,
            "dropped": dropped,
        }
        write_once(self.manifest, content)
        return len(samples)

    def _sample(self, index: int, planned: PlannedSet, decision: SetDecision) -> dict[str, Any]:
        """Return one sample with everything that led to it."""
        folder = self.set(index)
        assert decision.chosen is not None
        record = _read(_Record, folder.candidate(decision.chosen) / RECORD_FILE)
        for name, expected in record.sha256.items():
            path = folder.candidate(decision.chosen) / name
            if not path.is_file() or sha256_of(path) != expected:
                state = "has changed" if path.is_file() else "is missing"
                raise RoundError(
                    f"round {self.number}, set {index}: {name} of candidate {decision.chosen} {state}; remove "
                    f"{folder.candidate(decision.chosen)}, then --resume makes the same candidate again"
                )
        verdicts = [folder.verdict(judge) for judge in range(2)]
        return {
            "set": index,
            "prompt": planned.prompt,
            "criterion": planned.criterion,
            "candidate": decision.chosen,
            "seeds": record.seeds,
            "sha256": record.sha256,
            "verdicts": [asdict(verdict) for verdict in verdicts if verdict is not None],
            "decision": asdict(decision),
        }
