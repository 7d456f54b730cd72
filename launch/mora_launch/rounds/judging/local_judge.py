"""A judge that is a multimodal model on this machine, in its own server process: an agent of kind `multimodal`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from mora_runtime.errors import MoraError, PeerDied, ProtocolError, RoleFailed
from mora_runtime.process.run_directory import RunDirectory

from mora_launch.environments.catalog import Environments
from mora_launch.rounds.judging.criteria import Criterion
from mora_launch.rounds.judging.frames import shown_frames
from mora_launch.rounds.judging.judge import Interrupted, JudgeAnswer, Question
from mora_launch.rounds.judging.judge_agents import judge_agent
from mora_launch.rounds.judging.ranking import RankingDialogue, instruction, reminder
from mora_launch.rounds.settings import JudgeSettings
from mora_launch.serving.single_server import SingleServer


class LocalJudge:
    """Shows all candidates in one question. Without an answer in time, it abstains.

    Args:
        name: name of its role in the run.
        environments: those of the configuration, by name.

    Raises:
        MoraError: its environment does not exist or refuses the settings, or the model is not on this machine.
    """

    def __init__(self, settings: JudgeSettings, name: str, environments: Environments) -> None:
        assert settings.local is not None
        self.name = f"local:{settings.local.model}"
        self._settings = settings
        self._local = settings.local
        self._server = SingleServer(
            name, judge_agent(self._local), environments, shown=self.name, key="synthesis.judges",
            start_deadline_s=self._local.start_deadline_s,
        )  # fmt: skip

    def can_judge(self, criterion: Criterion) -> bool:
        """Any criterion: the model reads the question."""
        return True

    @contextlib.contextmanager
    def session(self, directory: RunDirectory) -> Iterator[None]:
        """Start and connect the server; it ends with the context and so frees its memory.

        Raises:
            Interrupted: the user asked to stop while the model was loading.
            MoraError: the model cannot be loaded.
        """
        with contextlib.ExitStack() as stack:
            with _interrupts():
                stack.enter_context(self._server.session(directory, "rounds"))
            yield

    def rank(self, question: Question) -> JudgeAnswer:
        """Ask, and once more if the answer has no valid ranking.

        Raises:
            Interrupted: the user asked to stop.
            RoleFailed: the server has ended.
        """
        shown = [shown_frames(clip, self._settings.num_frames, self._settings.frame_height) for clip in question.clips]
        frames = np.stack([np.asarray(frame) for video in shown for frame in video])
        dialogue, later = RankingDialogue(question), list[str]()
        while True:
            try:
                text = self._ask(frames, [len(video) for video in shown], instruction(question), later)
            except (PeerDied, RoleFailed):
                raise
            except MoraError as error:
                return dialogue.unanswered(f"{self.name}: {error}")
            answer = dialogue.take(text)
            if answer is not None:
                return answer
            later += [text, reminder(question, dialogue.fault)]

    def _ask(self, frames: npt.NDArray[np.uint8], num_frames: list[int], question: str, later: list[str]) -> str:
        from mora_runtime.tensors.arrays import to_tensor

        arguments = {"frames": to_tensor(frames), "num_frames": num_frames, "question": question, "later": later}
        with _interrupts():
            values = self._server.call("answer", arguments, timeout_s=self._local.timeout_s)
        if not isinstance(text := values.get("text"), str):
            raise ProtocolError(f"{self.name}: expected an answer `text`, got {sorted(values)}")
        return text


@contextlib.contextmanager
def _interrupts() -> Iterator[None]:
    """Rounds tell a stop by Ctrl-C from other ends by an error of their own."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted from None
