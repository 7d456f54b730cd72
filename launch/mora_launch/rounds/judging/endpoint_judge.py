"""A judge behind an OpenAI-compatible endpoint that accepts pictures."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from mora_runtime.errors import EndpointFailed
from mora_runtime.process.run_directory import RunDirectory

from mora_launch.chat.endpoint import Chat, picture_part
from mora_launch.rounds.judging.criteria import Criterion
from mora_launch.rounds.judging.frames import shown_frames
from mora_launch.rounds.judging.judge import JudgeAnswer, Question
from mora_launch.rounds.judging.ranking import RankingDialogue, instruction, reminder
from mora_launch.rounds.settings import JudgeSettings


class EndpointJudge:
    """Shows all candidates in one message. If the endpoint does not answer, it abstains, and a review decides."""

    def __init__(self, settings: JudgeSettings) -> None:
        assert settings.endpoint is not None
        self.name = f"endpoint:{settings.endpoint.model}"
        self._settings = settings
        self._chat = Chat(settings.endpoint, "judge (synthesis.judges.endpoint)")

    def can_judge(self, criterion: Criterion) -> bool:
        """Any criterion: the model reads the question."""
        return True

    def session(self, directory: RunDirectory) -> AbstractContextManager[object]:
        """Do nothing, because the judge runs elsewhere."""
        return nullcontext()

    def rank(self, question: Question) -> JudgeAnswer:
        """Ask, and once more if the answer has no valid ranking."""
        messages: list[dict[str, Any]] = [{"role": "user", "content": self._content(question)}]
        dialogue = RankingDialogue(question)
        while True:
            try:
                text = self._chat.ask(messages)
            except EndpointFailed as error:
                return dialogue.unanswered(str(error))
            if text is None:
                return dialogue.unanswered(f"{self._chat}: answered without text")
            answer = dialogue.take(text)
            if answer is not None:
                return answer
            messages += [
                {"role": "assistant", "content": text},
                {"role": "user", "content": reminder(question, dialogue.fault)},
            ]

    def _content(self, question: Question) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = [{"type": "text", "text": instruction(question)}]
        for number, clip in enumerate(question.clips, start=1):
            frames = shown_frames(clip, self._settings.num_frames, self._settings.frame_height)
            parts += [{"type": "text", "text": f"Video {number}:"}, *map(picture_part, frames)]
        return parts
