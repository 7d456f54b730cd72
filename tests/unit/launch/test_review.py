"""The review of a task: one state machine on disk, safe with two reviewers, resumable."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mora_launch.limits import MAX_NUM_EDITS
from mora_launch.review.decision import ReviewRefused, StageDecision, StageResult, Stopped
from mora_launch.review.reviewed_stages import ReviewedStages, run_reviewed
from mora_launch.review.session import ReviewSession
from mora_launch.tasks.request import TaskRequest


class DrawnAgents:
    """Agents whose pictures encode their request; the real ones need servers."""

    num_frames = 5

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, int]] = []

    def enhance(self, prompt: str) -> str:
        return prompt + ", enhanced"

    def text_to_image(self, prompt: str, seed: int) -> Any:
        self.calls.append(("image", prompt, seed))
        return np.full((4, 4, 3), seed % 251, dtype=np.uint8)

    def edited(self, prompt: str, seed: int, image: Any, strength: float) -> Any:
        self.calls.append(("adjust", prompt, seed))
        return image + np.uint8(1)

    def image_to_video(self, prompt: str, seed: int, image: Any, num_used: int = 0) -> Any:
        self.calls.append(("video", prompt, seed))
        return np.repeat(image[None], 5, axis=0)


REQUEST = TaskRequest("text_to_video", "a cat", 7, 8.0, strength=0.5)


def run(folder: Path, said: list[dict[str, Any]], agents: DrawnAgents | None = None) -> tuple[Any, DrawnAgents]:
    agents = agents or DrawnAgents()
    session = ReviewSession.create(folder, {"task": "text_to_video"})
    words = iter(said)

    def ask(session: ReviewSession) -> StageDecision:
        session.decide(StageDecision(version=session.state().version, **next(words)))
        return session.wait_decision(5.0)

    stages = ReviewedStages(session, agents, REQUEST, ask)  # type: ignore[arg-type]
    return run_reviewed(REQUEST, agents, stages, session), agents  # type: ignore[arg-type]


ACCEPT = {"action": "accept"}


def test_accepting_everything_gives_the_same_result_as_no_review(tmp_path: Path) -> None:
    clip, agents = run(tmp_path, [ACCEPT] * 3)
    assert agents.calls[0] == ("image", "a cat, enhanced", 7)
    assert (clip == 7).all()
    assert ReviewSession(tmp_path).state().status == "done"


def test_again_draws_another_seed_three_times_at_most(tmp_path: Path) -> None:
    again = {"action": "again"}
    with pytest.raises(ReviewRefused, match="at most 3 times"):
        run(tmp_path, [ACCEPT, again, again, again, again])
    candidate = ReviewSession(tmp_path).state().candidate
    assert candidate is not None
    assert candidate.attempt == 3


def test_an_edited_prompt_applies_from_its_stage_on(tmp_path: Path) -> None:
    _, agents = run(tmp_path, [ACCEPT, {"action": "edit", "prompt": "a dog"}, ACCEPT, ACCEPT])
    assert [(kind, prompt) for kind, prompt, _ in agents.calls] == [
        ("image", "a cat, enhanced"), ("image", "a dog"), ("video", "a dog"),
    ]  # fmt: skip


def test_adjusting_changes_the_picture_that_is_animated(tmp_path: Path) -> None:
    clip, _ = run(tmp_path, [ACCEPT, {"action": "adjust", "prompt": "brighter"}, ACCEPT, ACCEPT])
    assert (clip == 8).all()


def test_going_back_reopens_the_last_stage_and_keeps_earlier_ones(tmp_path: Path) -> None:
    back = {"action": "back"}
    _, agents = run(tmp_path, [ACCEPT, ACCEPT, back, {"action": "again"}, ACCEPT, ACCEPT])
    assert [kind for kind, _, _ in agents.calls] == ["image", "video", "image", "image", "video"]


def test_a_stopped_session_continues_where_it_was(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(tmp_path, [ACCEPT, ACCEPT, {"action": "stop"}])
    assert ReviewSession(tmp_path).state().status == "stopped"
    clip, agents = run(tmp_path, [ACCEPT])
    assert agents.calls == [], "the clip that waited still waits"
    assert (clip == 7).all()


def test_edits_and_new_seeds_survive_a_stop(tmp_path: Path) -> None:
    edit, again, stop = {"action": "edit", "prompt": "a dog"}, {"action": "again"}, {"action": "stop"}
    with pytest.raises(Stopped):
        run(tmp_path, [edit, stop])
    with pytest.raises(Stopped):
        run(tmp_path, [ACCEPT, again, again, {"action": "edit", "prompt": "a red dog"}, stop])
    left = ReviewSession(tmp_path).state()
    assert left.candidate is not None
    assert (left.candidate.prompt, left.candidate.attempt) == ("a red dog", 2)
    assert [accepted.prompt for accepted in left.accepted] == ["a dog"]
    clip, agents = run(tmp_path, [ACCEPT, ACCEPT])
    assert [(kind, prompt) for kind, prompt, _ in agents.calls] == [("video", "a red dog")]
    assert (clip == ReviewSession(tmp_path).frames(left.candidate)).all()


def test_a_session_is_not_continued_with_another_request(tmp_path: Path) -> None:
    ReviewSession.create(tmp_path, {"prompt": "a cat", "seed": 1, "videos": ()})
    ReviewSession.create(tmp_path, {"prompt": "a cat", "seed": 1, "videos": ()})
    with pytest.raises(ReviewRefused, match=r"another request \(prompt, seed differ\)"):
        ReviewSession.create(tmp_path, {"prompt": "a dog", "seed": 2, "videos": ()})


def test_if_two_reviewers_decide_at_once_only_one_counts(tmp_path: Path) -> None:
    session = ReviewSession.create(tmp_path, {})
    agents: Any = DrawnAgents()
    stages = ReviewedStages(session, agents, REQUEST, lambda each: each.wait_decision(5.0))
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        made = threads.submit(stages.text, "prompt", lambda: "a cat")
        while session.state().status != "waiting":
            assert not made.done()
        version = session.state().version
        outcomes = []
        for reviewer in [ReviewSession(tmp_path) for _ in range(8)]:
            try:
                reviewer.decide(StageDecision(version=version, action="accept"))
                outcomes.append("taken")
            except ReviewRefused:
                outcomes.append("refused")
        assert outcomes.count("taken") == 1
        assert made.result(5) == "a cat"


def test_a_candidate_without_a_reviewer_stops_the_session_in_time(tmp_path: Path) -> None:
    session = ReviewSession.create(tmp_path, {})
    agents: Any = DrawnAgents()
    stages = ReviewedStages(session, agents, REQUEST, lambda each: each.wait_decision(0.1))
    with pytest.raises(Stopped):
        stages.text("prompt", lambda: "a cat")
    assert session.state().status == "stopped"


def test_a_candidate_that_a_reviewer_has_not_seen_cannot_be_decided(tmp_path: Path) -> None:
    with pytest.raises(ReviewRefused, match="no candidate waits for a decision"):
        ReviewSession.create(tmp_path, {}).decide(StageDecision(version=1, action="accept"))
    with pytest.raises(ValueError, match="edit needs a prompt"):
        StageDecision(version=1, action="edit")


def test_a_decision_of_the_last_moment_is_not_lost(tmp_path: Path) -> None:
    session = ReviewSession.create(tmp_path, {})
    version = session.offer(StageResult(stage="prompt", kind="text", prompt="a cat", attempt=0)).version

    def is_cancelled() -> bool:  # asked after the session was seen waiting
        if session.state().status == "waiting":
            session.decide(StageDecision(version=version, action="accept"))
        return True

    assert session.wait_decision(60.0, is_cancelled).action == "accept"
    assert session.state().status == "decided"


def test_editing_a_prompt_takes_none_of_its_new_seeds(tmp_path: Path) -> None:
    edits = [{"action": "edit", "prompt": f"a dog {number}"} for number in range(4)]
    _, agents = run(tmp_path, [*edits, {"action": "again"}, ACCEPT, ACCEPT, ACCEPT])
    assert agents.calls[0][1] == "a cat, enhanced"


def test_edits_of_one_stage_are_limited_and_leave_one_candidate_on_disk(tmp_path: Path) -> None:
    edits = [{"action": "edit", "prompt": f"number {number}"} for number in range(MAX_NUM_EDITS + 1)]
    with pytest.raises(ReviewRefused, match=f"edit: at most {MAX_NUM_EDITS} times for a stage"):
        run(tmp_path / "session", [ACCEPT, *edits])
    assert len(list((tmp_path / "session").glob("*.npy"))) == 1
