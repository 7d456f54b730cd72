"""A judge that is a multimodal model on this machine, in its own server process: an agent of kind `multimodal`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from mora_runtime.errors import DeadlineExceeded, MoraError, PeerDied, ProtocolError, RoleFailed
from mora_runtime.process.run_directory import RunDirectory
from mora_runtime.process.supervisor import Supervisor

from mora_launch.environments.agent_options import check_options
from mora_launch.environments.build import ensure_environments
from mora_launch.environments.catalog import Environments, find_environment
from mora_launch.jobs.servers import server_settings, start_server
from mora_launch.limits import CONTROL_DEADLINE_S
from mora_launch.rounds.judging.criteria import Criterion
from mora_launch.rounds.judging.frames import shown_frames
from mora_launch.rounds.judging.judge import Interrupted, JudgeAnswer, Question
from mora_launch.rounds.judging.judge_agents import judge_agent
from mora_launch.rounds.judging.ranking import RankingDialogue, instruction, reminder
from mora_launch.rounds.settings import JudgeSettings
from mora_launch.weights.missing import refuse_missing

if TYPE_CHECKING:
    from mora_runtime import Client

_TICK_S = 0.2  # interval of checks for the server's death and Ctrl-C while it answers


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
        self._agent = name
        self._config = judge_agent(self._local)
        self._environment = find_environment(environments, self._local.environment, "synthesis.judges")
        ensure_environments([self._environment])
        checked = check_options(name, self._config, self._environment)
        refuse_missing([checked])
        self._options = checked.options
        self._connected: tuple[Client, Supervisor] | None = None

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
        from mora_runtime import Session

        settings = server_settings(
            directory, self._agent, self._config, self._environment, self._options, warm_nbytes=0
        )
        with Supervisor(lambda _: None) as supervisor:
            child = start_server(supervisor, directory, settings, self._environment)
            if not supervisor.wait_ready([child], deadline_s=self._local.start_deadline_s):
                raise Interrupted
            with Session.open(directory, "rounds", warm_nbytes=0) as session:
                client = session.connect(
                    settings.role, deadline_s=CONTROL_DEADLINE_S, expected_lock_hash=settings.lock_hash
                )
                self._connected = client, supervisor
                try:
                    yield
                finally:
                    self._connected = None

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
        from mora_runtime.rpc.client import wait_for_messages
        from mora_runtime.tensors.arrays import to_tensor

        assert self._connected is not None, "rank is called inside a session"
        client, supervisor = self._connected
        arguments = {"frames": to_tensor(frames), "num_frames": num_frames, "question": question, "later": later}
        pending = client.submit(self._agent, "answer", arguments, deadline_s=self._local.timeout_s)
        while not pending.has_ended:
            wait_for_messages([client], _TICK_S)
            if supervisor.look(timeout_s=0.0):
                raise RoleFailed(f"{self.name}: its server ended during a question; see logs/{self._agent}.0.*")
            if supervisor.num_interrupts:
                raise Interrupted
        try:
            values = pending.result().values
        except DeadlineExceeded:
            client.cancel(pending, CONTROL_DEADLINE_S)  # so that the next question need not wait for this one
            raise
        if not isinstance(text := values.get("text"), str):
            raise ProtocolError(f"{self.name}: expected an answer `text`, got {sorted(values)}")
        return text
