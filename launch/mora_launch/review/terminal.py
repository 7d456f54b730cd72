"""Review at the terminal: shows the path of each candidate and reads a decision of one letter."""

from __future__ import annotations

from mora_runtime.files.fresh_file import write_fresh
from pydantic import ValidationError
from rich.console import Console

from mora_launch.review.decision import Action, ReviewRefused, StageDecision, first_fault
from mora_launch.review.session import ReviewSession
from mora_launch.tasks.media import encode, png

_LETTERS: dict[str, Action] = {"a": "accept", "n": "again", "e": "edit", "j": "adjust", "b": "back", "q": "stop"}
_QUESTION = "[a]ccept, agai[n], [e]dit prompt, ad[j]ust picture, [b]ack, stop [q] "


class TerminalReviewer:
    """Prints the path of each candidate and reads decisions; end of input stops the session."""

    def __init__(self, console: Console, fps: float) -> None:
        self._console = console
        self._fps = fps

    def __call__(self, session: ReviewSession) -> StageDecision:
        """Return a valid decision; ask again after an invalid one."""
        while True:
            state = session.state()
            if state.status != "waiting" and state.decision is not None:
                return state.decision  # another reviewer was first
            self._show(session)
            try:
                session.decide(self._read(state.version))
            except (ReviewRefused, ValidationError) as error:
                text = str(error) if isinstance(error, ReviewRefused) else first_fault(error)
                self._console.print(text, style="yellow", markup=False)

    def _show(self, session: ReviewSession) -> None:
        candidate = session.state().candidate
        assert candidate is not None, "a session that waits has a candidate"
        self._console.print(f"{candidate.stage}: {candidate.prompt}", markup=False)
        if candidate.kind == "frames":
            frames = session.frames(candidate)
            kind = "png" if frames.ndim == 3 else "mp4"
            path = session.folder / f"{candidate.stage.replace(' ', '-')}.{kind}"
            write_fresh(path, png(frames) if kind == "png" else encode(frames, self._fps, "mp4", {}))
            self._console.print(f"  see {path}", markup=False)

    def _read(self, version: int) -> StageDecision:
        try:
            letter = self._console.input(_QUESTION, markup=False).strip().lower()[:1]
            action = _LETTERS.get(letter)
            if action is None:
                raise ReviewRefused(f"expected one of {', '.join(_LETTERS)}")
            asks = action in ("edit", "adjust")
            prompt = self._console.input("prompt: ", markup=False) if asks else None
        except EOFError:
            return StageDecision(version=version, action="stop")
        return StageDecision(version=version, action=action, prompt=prompt)
