"""A review session: state on disk, changed under a lock by the task that makes candidates and by the reviewers.

working -> waiting (for a decision about a candidate) -> decided (by one reviewer) -> working ... -> done. Any state can
change to stopped, and stopped to working when the session is resumed. Every change increases the version.
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

from mora_data.reading.fitting import Clip
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

_STATE = "state.json"
SHOWN = "shown-"  # followed by the version: the candidate as a picture or video, for display
_POLL_S = 0.2  # the decision may come from another process


class ReviewSession:
    """A session in one folder. Several threads and processes can use it at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._changed = threading.Condition()
        self._known: tuple[tuple[int, ...], ReviewState] | None = None  # signature of the file, and its content

    @classmethod
    def create(cls, folder: Path, request: dict[str, Any]) -> ReviewSession:
        """Create a session, or resume the one in the folder.

        Raises:
            ReviewRefused: the folder has a session for another request.
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
                f"{folder} contains a review of another request ({', '.join(differing)} differ); repeat that request "
                "to resume it, remove the folder, or choose another output"
            )
        session.resume()
        return session

    def resume(self) -> None:
        """Set the state to working."""
        self._change(lambda state: state.model_copy(update={"status": "working", "decision": None}))

    def state(self) -> ReviewState:
        """Return the current state."""
        path = self.folder / _STATE
        try:
            found = path.lstat()
            signature = (found.st_ino, found.st_mtime_ns, found.st_size)  # each change replaces the file
            known = self._known
            if known is not None and known[0] == signature:
                return known[1]
            content = parse_object(read_foreign(path, MAX_REVIEW_STATE_NBYTES, follow_links=False))
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise SettingsError(f"{path}: cannot be read: {why}; remove the folder to start the review again") from None
        state = read_settings(ReviewState, content, source=str(path))
        self._known = (signature, state)
        return state

    def accepted(self, stage: str) -> StageResult | None:
        """Return the accepted result of a stage, if any."""
        return next((each for each in self.state().accepted if each.stage == stage), None)

    def left_open(self, stage: str) -> StageResult | None:
        """Return the candidate that a stage had when the session was stopped, to offer it again."""
        candidate = self.state().candidate
        return candidate if candidate is not None and candidate.stage == stage else None

    def offer(self, candidate: StageResult, frames: Clip | None = None) -> ReviewState:
        """Offer a candidate to the reviewers."""
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
        """Remove all candidates but the accepted ones and the current one, so that many edits do not fill the disk."""
        kept = {each.file for each in (*state.accepted, state.candidate) if each is not None}
        for path in self.folder.iterdir():
            was_shown = path.name.startswith(SHOWN) and path.name != f"{SHOWN}{state.version}"
            if was_shown or (path.suffix == ".npy" and path.name not in kept):
                path.unlink(missing_ok=True)

    def frames(self, candidate: StageResult) -> Clip:
        """Read the frames of a candidate of this session."""
        assert candidate.file is not None, "a text has no frames"
        return read_frames(self.folder / candidate.file)

    def decide(self, decision: StageDecision) -> ReviewState:
        """Record a decision. Raises: ReviewRefused: another came first, or a limit is reached; nothing changed."""

        def apply(state: ReviewState) -> ReviewState:
            candidate = state.candidate
            if state.status != "waiting" or candidate is None:
                raise ReviewRefused(f"no candidate waits for a decision (the review is {state.status}); reload it")
            if decision.version != state.version:
                raise ReviewRefused(f"version: expected {state.version}, got {decision.version}; reload the review")
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
        """Wait for the decision about the current candidate.

        Raises:
            Stopped: no decision came in time, or the task was cancelled; the session can be resumed.
        """
        deadline = time.monotonic() + timeout_s
        while (state := self.state()).status == "waiting":
            if is_cancelled() or time.monotonic() > deadline:
                if self._stop_waiting():
                    raise Stopped("no decision came in time; resume the session later")
                continue
            with self._changed:
                self._changed.wait(_POLL_S)
        assert state.decision is not None, "only a decision ends waiting"
        return state.decision

    def accept(self, candidate: StageResult) -> None:
        """Make the candidate the result of its stage."""
        self._change(
            lambda state: state.model_copy(
                update={"status": "working", "accepted": (*state.accepted, candidate), "candidate": None}
            )
        )

    def go_back(self) -> None:
        """Reopen the last accepted stage."""
        self._change(
            lambda state: state.model_copy(
                update={"status": "working", "accepted": state.accepted[:-1], "candidate": None, "decision": None}
            )
        )

    def stop(self) -> None:
        """Stop the session; it keeps the current candidate and can be resumed."""
        self._change(lambda state: state.model_copy(update={"status": "stopped"}))

    def _stop_waiting(self) -> bool:
        """Stop the session unless a decision has just come; return whether it stopped."""

        def apply(state: ReviewState) -> ReviewState:
            return state.model_copy(update={"status": "stopped"}) if state.status == "waiting" else state

        return self._change(apply).status == "stopped"

    def finish(self) -> None:
        """Mark the session as done."""
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
    """Refuse a folder that belongs to another user or is writable by one."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise ReviewRefused(
            f"{folder}: expected a folder that you own and no other user can write to; remove it, or choose another "
            "output"
        )


def _write(folder: Path, state: ReviewState) -> None:
    text = state.model_dump_json(indent=1)
    if len(text.encode()) > MAX_REVIEW_STATE_NBYTES:
        raise ReviewRefused(f"this review has reached its limit of {MAX_REVIEW_STATE_NBYTES} bytes for decisions")
    replace_text(folder / _STATE, text)
