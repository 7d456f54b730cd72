"""A judge behind an endpoint that answers, answers prose, is slow, is broken, or does not exist."""

from collections.abc import Iterator
from typing import Any

import pytest
from chat_endpoint import SILENCE, ChatEndpoint, chat_endpoint
from mora_data.moving_shapes import made_clip
from mora_data.settings import ClipShape
from mora_launch.rounds.judging.criteria import CRITERIA
from mora_launch.rounds.judging.endpoint_judge import EndpointJudge
from mora_launch.rounds.judging.judge import Question
from mora_launch.rounds.settings import EndpointSettings, JudgeSettings

SHAPE = ClipShape(num_frames=9, height=64, width=64, fps=8)
QUESTION = Question("a red circle", CRITERIA["flicker"], tuple(made_clip(index, SHAPE)[1] for index in range(3)))
GOOD = "I looked.\nRANKING: 2 > 3 > 1"


@pytest.fixture
def endpoint() -> Iterator[ChatEndpoint]:
    with chat_endpoint() as server:
        yield server


def judge(endpoint: ChatEndpoint, **changes: Any) -> EndpointJudge:
    settings = EndpointSettings(
        **{"base_url": endpoint.base_url, "model": "m", "max_retries": 0, "timeout_s": 20.0, **changes}
    )
    return EndpointJudge(JudgeSettings(kind="endpoint", endpoint=settings, num_frames=2))


def test_it_shows_every_candidate_and_reads_the_ranking(endpoint: ChatEndpoint) -> None:
    endpoint.answers = [GOOD]
    answer = judge(endpoint).rank(QUESTION)
    assert answer.ranking == (1, 2, 0)
    assert answer.raw == (GOOD,)
    (content,) = (message["content"] for message in endpoint.asked[0]["messages"])
    assert [part["text"] for part in content if part.get("text", "").startswith("Video")] == [
        "Video 1:", "Video 2:", "Video 3:",
    ]  # fmt: skip
    pictures = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    assert len(set(pictures)) == 6
    assert all(picture.startswith("data:image/png;base64,") for picture in pictures)


def test_a_judge_answers_without_chance_and_at_bounded_length(endpoint: ChatEndpoint) -> None:
    endpoint.answers = [GOOD]
    judge(endpoint).rank(QUESTION)
    assert (endpoint.asked[0]["temperature"], endpoint.asked[0]["max_tokens"]) == (0.0, 512)


def test_a_judge_that_answers_prose_is_asked_once_more_and_told_why(endpoint: ChatEndpoint) -> None:
    endpoint.answers = ["They are all nice.", GOOD]
    answer = judge(endpoint).rank(QUESTION)
    assert answer.ranking == (1, 2, 0)
    assert answer.raw == ("They are all nice.", GOOD)
    again = endpoint.asked[1]["messages"]
    assert [message["role"] for message in again] == ["user", "assistant", "user"]
    assert "no line `RANKING" in again[2]["content"]
    endpoint.answers = ["They are all nice."]
    abstained = judge(endpoint).rank(QUESTION)
    assert abstained.ranking is None
    assert len(abstained.raw) == 2
    assert len(endpoint.asked) == 4


@pytest.mark.parametrize(
    "body",
    [
        (500, b"{}"), (401, b"{}"), (200, b""), (200, b"<html>busy</html>"), (200, b"busy"), (200, b"{}"), (200, b"[]"),
        (200, b'{"choices": []}'), (200, b'{"choices": [{}]}'), (200, b'{"choices": [{"message": {"content": null}}]}'),
        "",
    ],
)  # fmt: skip
def test_an_invalid_answer_is_an_abstention_that_names_the_endpoint(
    endpoint: ChatEndpoint, body: str | tuple[int, bytes]
) -> None:
    endpoint.answers = [body]
    answer = judge(endpoint).rank(QUESTION)
    assert answer.ranking is None
    assert answer.raw == ()
    assert f"127.0.0.1:{endpoint.server_port}" in answer.note


def test_a_slow_endpoint_is_given_up_after_the_configured_time(endpoint: ChatEndpoint) -> None:
    endpoint.answers = [SILENCE]
    answer = judge(endpoint, timeout_s=0.2, max_retries=1).rank(QUESTION)
    assert answer.ranking is None
    assert "no answer after 2 attempt(s)" in answer.note
    assert len(endpoint.asked) == 2


def test_an_endpoint_that_is_down_is_an_abstention(endpoint: ChatEndpoint) -> None:
    with ChatEndpoint() as other:
        port = other.server_port
    answer = judge(endpoint, base_url=f"http://127.0.0.1:{port}/v1").rank(QUESTION)
    assert answer.ranking is None
    assert f"127.0.0.1:{port}" in answer.note
    assert endpoint.asked == []
