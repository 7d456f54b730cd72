"""A run's rounds on disk. Every fact is one file, written whole by one rename, and never written twice.

    rounds/01/plan.json                      prompts, seeds, criterion of each set; the model that makes candidates
    rounds/01/sets/003/candidate-2/          frames.mkv, video.mp4, first-frame.png, noise.safetensors, candidate.json
    rounds/01/sets/003/verdict-0.json        first judge: raw answers, order shown, ranking
    rounds/01/sets/003/decision.json         which candidate, and who decided: judges, a reviewer, a rule
    rounds/01/dataset.jsonl, manifest.json   what is trained on, and where every part of it came from
    rounds/01/trained.json                   step of the checkpoint that is the next round's model
    rounds/01/report.html
    evaluation/step-00000004/000/candidate-0/   held-out prompts with the model after so many steps

What is not there has not been done: the state of a run is read from its files, so it can be killed anywhere.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
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
    """Write a file whole or not at all, synced; StorageError where the disk takes it not."""
    text = content if isinstance(content, str) else json.dumps(content, indent=1, sort_keys=True) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, text)
    except OSError as error:
        what = "no room is left" if error.errno == errno.ENOSPC else error.strerror
        raise StorageError(
            f"{path}: cannot be written ({what}); what is whole is kept: make room and run the same command with "
            "--resume"
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """A file that `write_once` wrote; RoundError where somebody changed it."""
    try:
        return parse_object(read_foreign(path, MAX_RECORD_NBYTES))
    except (OSError, ValueError) as error:
        raise RoundError(f"{path}: cannot be read ({error}); remove it, and --resume makes it again") from None


def _read(kind: type[_Kind], path: Path) -> _Kind:
    """A file that holds one of these; RoundError where a value is of another kind."""
    try:
        return TypeAdapter(kind).validate_python(read_json(path))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "it"
        raise RoundError(
            f"{path}: {shown_line(where, 80)}: {fault['msg']}; it was not written by Mora: remove it, and --resume "
            "makes it again"
        ) from None


@dataclass(frozen=True)
class SetDecision:
    """What became of a set."""

    chosen: int | None  # candidate; None = the set is dropped
    decided_by: str  # judges, rule, reviewer
    reviewer: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class PlannedSet:
    """One prompt of a round."""

    prompt: str
    criterion: str
    seeds: tuple[int, ...]  # one for each candidate, of both agents


@dataclass(frozen=True)
class Plan:
    """What a round will do; fixed before its first candidate."""

    round: int
    first_step: int  # the model that makes the candidates: steps that it has been trained for
    last_step: int  # to which the round trains
    weights_sha256: dict[str, str]
    sets: tuple[PlannedSet, ...]


@dataclass(frozen=True)
class _Record:
    """What a candidate's record says of how it was made."""

    image_seed: int
    video_seed: int
    sha256: dict[_PlainName, str]  # of its files


@dataclass(frozen=True)
class SetFolder:
    """The files of one prompt."""

    path: Path

    def candidate(self, number: int) -> Path:
        """Folder of a candidate."""
        return self.path / f"candidate-{number}"

    def video(self, number: int) -> Path:
        """The video of a candidate."""
        return self.candidate(number) / VIDEO_FILE

    def preview(self, number: int) -> Path:
        """The video of a candidate as a browser plays it."""
        return self.candidate(number) / PREVIEW_FILE

    def verdict(self, judge: int) -> Verdict | None:
        """What a judge said, or None."""
        path = self._verdict_file(judge)
        if not path.exists():
            return None
        return _read(Verdict, path)

    def write_verdict(self, judge: int, verdict: Verdict) -> None:
        """Keep what a judge said."""
        write_once(self._verdict_file(judge), asdict(verdict))

    def _verdict_file(self, judge: int) -> Path:
        return self.path / f"verdict-{judge}.json"

    @property
    def decision_file(self) -> Path:
        """Where the decision is, once it is."""
        return self.path / "decision.json"

    def decision(self) -> SetDecision | None:
        """What became of the set, or None."""
        return _read(SetDecision, self.decision_file) if self.decision_file.exists() else None

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
        """The plan, or None."""
        path = self.path / "plan.json"
        if not path.exists():
            return None
        return _read(Plan, path)

    def write_plan(self, plan: Plan) -> None:
        """Fix the plan."""
        write_once(self.path / "plan.json", asdict(plan))

    def set(self, index: int) -> SetFolder:
        """Files of one prompt."""
        return SetFolder(self.path / "sets" / f"{index:03d}")

    @property
    def dataset(self) -> Path:
        """What is trained on: JSON lines as the trainer reads them."""
        return self.path / "dataset.jsonl"

    @property
    def manifest(self) -> Path:
        """Where every part of the dataset came from."""
        return self.path / "manifest.json"

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / "report.html"

    def trained(self) -> dict[str, Any] | None:
        """What training the round gave, or None."""
        path = self.path / "trained.json"
        return read_json(path) if path.exists() else None

    def write_trained(self, content: Mapping[str, Any]) -> None:
        """The round is done."""
        write_once(self.path / "trained.json", content)

    def write_manifest(self, plan: Plan) -> int:
        """Write dataset and manifest of everything that was chosen; returns the number of samples.

        Raises:
            RoundError: a set is undecided, or a chosen video is gone or was changed.
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
                    "image_seed": planned.seeds[decision.chosen],
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
        """One sample with everything that led to it."""
        folder = self.set(index)
        assert decision.chosen is not None
        record = _read(_Record, folder.candidate(decision.chosen) / RECORD_FILE)
        for name, expected in record.sha256.items():
            path = folder.candidate(decision.chosen) / name
            if not path.is_file() or sha256_of(path) != expected:
                state = "was changed" if path.is_file() else "is gone"
                raise RoundError(
                    f"round {self.number}, set {index}: {name} of candidate {decision.chosen} {state}; remove "
                    f"{folder.candidate(decision.chosen)}, and --resume makes the same candidate again"
                )
        verdicts = [folder.verdict(judge) for judge in range(2)]
        return {
            "set": index,
            "prompt": planned.prompt,
            "criterion": planned.criterion,
            "candidate": decision.chosen,
            "image_seed": record.image_seed,
            "video_seed": record.video_seed,
            "sha256": record.sha256,
            "verdicts": [asdict(verdict) for verdict in verdicts if verdict is not None],
            "decision": asdict(decision),
        }
