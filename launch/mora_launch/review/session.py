"""A review session: its state on disk, changed under a lock by the task that works and the reviewers who decide.

working -> waiting (a candidate is there) -> decided (by one reviewer) -> working ... -> done; stopped from anywhere,
and from there to working again when it is resumed. Every change makes a new version.
"""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mora_runtime.errors import SettingsError
from mora_runtime.files.durable_files import replace_text
from mora_runtime.files.file_lock import lock_file
from mora_runtime.files.foreign_file import read_foreign
from mora_runtime.files.foreign_json import parse_object
from mora_runtime.limits import LOCK_DEADLINE_S
from mora_runtime.schema import read_settings

from mora_launch.limits import MAX_NUM_AGAIN, MAX_NUM_EDITS, MAX_REVIEW_STATE_NBYTES
from mora_launch.review.decision import (
    ReviewRefused,
    ReviewState,
    StageDecision,
    StageResult,
    Stopped,
)
from mora_launch.review.frames_file import read_frames, write_frames
from mora_launch.tasks.media import Clip

_STATE = "state.json"
SHOWN = "shown-"  # and the version: the candidate as a picture or video for those who look at it
_POLL_S = 0.2  # another process may decide


class ReviewSession:
    """One folder. Usable from several threads and processes at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._changed = threading.Condition()
        self._known: tuple[tuple[int, ...], ReviewState] | None = None  # signature of the file, and what it holds

    @classmethod
    def create(cls, folder: Path, request: dict[str, Any]) -> ReviewSession:
        """A new session, or the one that the folder holds already, to go on with.

        Raises:
            ReviewRefused: it is about another request.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_own(folder)
        session = cls(folder)
        asked = json.loads(json.dumps(request))
        with session._locked():
            if not os.path.lexists(folder / _STATE):
                _write(folder, ReviewState(request=asked))
        known = session.state().request
        if differing := sorted(key for key in {*known, *asked} if known.get(key) != asked.get(key)):
            raise ReviewRefused(
                f"{folder} holds a review of another request ({', '.join(differing)} differ); repeat that to go "
                "on with it, remove the folder, or choose another output"
            )
        session.resume()
        return session

    def resume(self) -> None:
        """The task works again."""
        self._change(lambda state: state.model_copy(update={"status": "working", "decision": None}))

    def state(self) -> ReviewState:
        """As it is now."""
        path = self.folder / _STATE
        try:
            found = path.lstat()
            signature = (found.st_ino, found.st_mtime_ns, found.st_size)  # each change makes another file
            known = self._known
            if known is not None and known[0] == signature:
                return known[1]
            content = parse_object(read_foreign(path, MAX_REVIEW_STATE_NBYTES, follow_links=False))
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise SettingsError(f"{path}: cannot be read: {why}; remove the folder to begin the review anew") from None
        state = read_settings(ReviewState, content, source=str(path))
        self._known = (signature, state)
        return state

    def accepted(self, stage: str) -> StageResult | None:
        """What was accepted for a stage, if it was."""
        return next((each for each in self.state().accepted if each.stage == stage), None)

    def left_open(self, stage: str) -> StageResult | None:
        """What was on offer for a stage when the session was stopped; it is offered again as it was."""
        candidate = self.state().candidate
        return candidate if candidate is not None and candidate.stage == stage else None

    def offer(self, candidate: StageResult, frames: Clip | None = None) -> ReviewState:
        """Put a candidate in front of the reviewers."""
        if frames is not None:
            name = f"{candidate.stage.replace(' ', '-')}-{time.time_ns()}.npy"
            write_frames(self.folder / name, frames)
            candidate = candidate.model_copy(update={"file": name})
        offered = self._change(
            lambda state: state.model_copy(update={"status": "waiting", "candidate": candidate, "decision": None})
        )
        self._forget_others(offered)
        return offered

    def _forget_others(self, state: ReviewState) -> None:
        """Remove candidates that were neither accepted nor are on offer, so that edits without end fill no disk."""
        kept = {each.file for each in (*state.accepted, state.candidate) if each is not None}
        for path in self.folder.iterdir():
            was_shown = path.name.startswith(SHOWN) and path.name != f"{SHOWN}{state.version}"
            if was_shown or (path.suffix == ".npy" and path.name not in kept):
                path.unlink(missing_ok=True)

    def frames(self, candidate: StageResult) -> Clip:
        """The frames of a candidate of this session."""
        assert candidate.file is not None, "a text has no frames"
        return read_frames(self.folder / candidate.file)

    def decide(self, decision: StageDecision) -> ReviewState:
        """A reviewer's word. Raises: ReviewRefused: somebody was first, or a limit is reached; nothing has changed."""

        def apply(state: ReviewState) -> ReviewState:
            candidate = state.candidate
            if state.status != "waiting" or candidate is None:
                raise ReviewRefused(f"nothing waits for a decision now (the review is {state.status}); look again")
            if decision.version != state.version:
                raise ReviewRefused(f"version: expected {state.version}, got {decision.version}; look again")
            if decision.action == "again" and candidate.attempt >= MAX_NUM_AGAIN:
                raise ReviewRefused(f"again: at most {MAX_NUM_AGAIN} times for a stage; edit the prompt, or go back")
            if decision.action in ("edit", "adjust") and len(candidate.steps) >= MAX_NUM_EDITS:
                raise ReviewRefused(
                    f"{decision.action}: at most {MAX_NUM_EDITS} times for a stage; accept it, or go back"
                )
            if decision.action == "back" and not state.accepted:
                raise ReviewRefused("back: this is the first stage")
            if decision.action == "adjust" and (candidate.kind == "text" or self.frames(candidate).ndim != 3):
                raise ReviewRefused("adjust: only a picture can be adjusted by image-to-image")
            return state.model_copy(update={"status": "decided", "decision": decision})

        return self._change(apply)

    def wait_decision(self, timeout_s: float, is_cancelled: Callable[[], bool] = lambda: False) -> StageDecision:
        """What the reviewers decide about the candidate.

        Raises:
            Stopped: nobody did in time, or the task was cancelled; the session can be resumed.
        """
        deadline = time.monotonic() + timeout_s
        while (state := self.state()).status == "waiting":
            if is_cancelled() or time.monotonic() > deadline:
                if self._stop_waiting():
                    raise Stopped("nobody decided in time; resume the session later")
                continue
            with self._changed:
                self._changed.wait(_POLL_S)
        assert state.decision is not None, "only a decision ends waiting"
        return state.decision

    def accept(self, candidate: StageResult) -> None:
        """The candidate becomes its stage's result."""
        self._change(
            lambda state: state.model_copy(
                update={"status": "working", "accepted": (*state.accepted, candidate), "candidate": None}
            )
        )

    def go_back(self) -> None:
        """The last accepted stage is open again."""
        self._change(
            lambda state: state.model_copy(
                update={"status": "working", "accepted": state.accepted[:-1], "candidate": None, "decision": None}
            )
        )

    def stop(self) -> None:
        """To be resumed later, with the candidate that is on offer."""
        self._change(lambda state: state.model_copy(update={"status": "stopped"}))

    def _stop_waiting(self) -> bool:
        """Stop, unless somebody has decided at the last moment; whether it is stopped."""

        def apply(state: ReviewState) -> ReviewState:
            return state.model_copy(update={"status": "stopped"}) if state.status == "waiting" else state

        return self._change(apply).status == "stopped"

    def finish(self) -> None:
        """The task is done."""
        self._change(lambda state: state.model_copy(update={"status": "done", "candidate": None}))

    def _change(self, change: Callable[[ReviewState], ReviewState]) -> ReviewState:
        with self._locked():
            before = self.state()
            after = change(before).model_copy(update={"version": before.version + 1})
            _write(self.folder, after)
        with self._changed:
            self._changed.notify_all()
        return after

    @contextmanager
    def _locked(self) -> Iterator[None]:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            handle = os.open(self.folder / "lock", flags, 0o600)
        except OSError as error:
            raise SettingsError(f"{self.folder}: the review cannot be locked: {error.strerror}") from None
        try:
            lock_file(handle, LOCK_DEADLINE_S, shown=str(self.folder / "lock"))
            yield
        finally:
            os.close(handle)


def _check_own(folder: Path) -> None:
    """Refuse a folder that another user has put there, or can change."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise ReviewRefused(
            f"{folder}: expected a folder of your own that nobody else can write to; remove it, or choose another "
            "output"
        )


def _write(folder: Path, state: ReviewState) -> None:
    text = state.model_dump_json(indent=1)
    if len(text.encode()) > MAX_REVIEW_STATE_NBYTES:
        raise ReviewRefused(f"a review's state has at most {MAX_REVIEW_STATE_NBYTES} bytes: no more decisions fit in")
    replace_text(folder / _STATE, text)
