"""`mora generate`: all tasks from files to files on real servers of tiny models, which all tests share."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.testing
import mora_launch.generation.command
import numpy as np
import pytest
from mora_launch.cli import cli
from mora_launch.decoding.picture import read_picture
from mora_launch.decoding.video import read_video
from mora_launch.review.session import ReviewSession
from mora_launch.serving.running_servers import RunningServers
from mora_launch.tasks.media import encode, png, read_metadata
from mora_runtime.errors import MoraError
from PIL import Image

from .conftest import TINY

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def generate(
    servers: RunningServers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., click.testing.Result]:
    """The command on servers that already run, in a folder with input files."""
    monkeypatch.setattr(mora_launch.generation.command, "RunningServers", lambda *_: contextlib.nullcontext(servers))
    (tmp_path / "a.png").write_bytes(png(np.full((80, 120, 3), 90, dtype=np.uint8)))
    for name, colour in (("a.mp4", 200), ("b.mp4", 40)):
        (tmp_path / name).write_bytes(encode(np.full((6, 48, 80, 3), colour, dtype=np.uint8), 8.0, "mp4", {}))
    Image.new("RGB", (32, 32)).save(tmp_path / "still.gif")
    (tmp_path / "broken.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:300])
    monkeypatch.chdir(tmp_path)

    def run(*words: str, **options: Any) -> click.testing.Result:
        config = () if "--repeat" in words else ("--config", str(TINY), "--steps", "4")
        return click.testing.CliRunner().invoke(cli, ["generate", *config, *words], **options)

    return run


@pytest.mark.parametrize(
    ("words", "output", "num_frames"),
    [
        (["text-to-video", "--seconds", "3"], "out.mp4", 24),
        (["image-to-video", "--image", "a.png"], "out.webm", 9),
        (["extend", "--video", "a.mp4"], "out.mp4", 6 + 8),
        (["edit", "--video", "a.mp4"], "out.gif", 6),
        (["connect", "--video", "a.mp4", "--video", "b.mp4"], "out.mp4", 6 + 3 + 6),
        (["simulate", "--video", "a.mp4", "--fps", "16"], "out.mp4", 12),
    ],
)
def test_every_task_makes_a_file_and_repeating_it_makes_the_same_bytes(
    generate: Any, words: list[str], output: str, num_frames: int
) -> None:
    made = generate(*words, "--prompt", "a red circle", "--seed", "3", "-o", output)
    assert made.exception is None, made.exception
    content = Path(output).read_bytes()
    assert read_video(content, "made", max_frames=200).frames.shape == (num_frames, 64, 64, 3)
    beside = json.loads(Path(f"{output}.json").read_text())
    assert read_metadata(content) == beside
    assert beside["mora"]["seed"] == 3
    again = generate("--repeat", f"{output}.json", "-o", f"again.{output}")
    assert again.exception is None, again.exception
    assert Path(f"again.{output}").read_bytes() == content


def test_an_agent_outside_the_chain_alone_has_its_capabilities(servers: RunningServers) -> None:
    capabilities = {worker.role: worker.capabilities for worker in servers.pool.workers}
    assert capabilities["connector.0"] == ("connect_videos",)
    assert capabilities["video.0"] == ("image_to_video", "extend_video")
    assert servers.pool.describe("connect_videos")["agent"] == "connector"


def test_a_picture_is_the_first_frame_and_has_the_requested_size(generate: Any) -> None:
    made = generate("text-to-video", "--prompt", "a cat", "--size", "96x48", "-o", "out.png")
    assert made.exception is None, made.exception
    assert read_picture(Path("out.png").read_bytes(), "made").shape == (48, 96, 3)


def test_a_stopped_review_continues_with_the_same_output(generate: Any) -> None:
    words = ("text-to-video", "--prompt", "a cat", "--seed", "3", "--review", "-o", "out.mp4")
    stopped = generate(*words, input="a\nq\n")  # the prompt is accepted, the picture left for another day
    assert isinstance(stopped.exception, MoraError)
    assert "stopped; repeat the command to resume the session in" in str(stopped.exception)
    resumed = generate(*words, input="a\na\n")
    assert resumed.exception is None, resumed.exception
    generate("text-to-video", "--prompt", "a cat", "--seed", "3", "-o", "plain.mp4")
    made, plain = (read_video(Path(f).read_bytes(), "made", max_frames=20) for f in ("out.mp4", "plain.mp4"))
    assert (made.frames == plain.frames).all()


def test_a_negative_prompt_changes_the_result_and_is_repeated(generate: Any) -> None:
    words = ("text-to-video", "--prompt", "a cat", "--seed", "3", "--guidance", "4", "--no-enhance")
    for name, more in (("plain.mp4", ()), ("out.mp4", ("--negative-prompt", "a dog"))):
        made = generate(*words, *more, "-o", name)
        assert made.exception is None, made.exception
    clips = [read_video(Path(name).read_bytes(), "made", max_frames=9).frames for name in ("plain.mp4", "out.mp4")]
    assert not np.array_equal(*clips)
    assert "negative_prompt" not in read_metadata(Path("plain.mp4").read_bytes())["mora"]
    again = generate("--repeat", "out.mp4.json", "-o", "again.mp4")
    assert again.exception is None, again.exception
    assert Path("again.mp4").read_bytes() == Path("out.mp4").read_bytes()


def test_a_reviewed_run_is_repeated_with_what_its_reviewer_decided(generate: Any) -> None:
    words = ("text-to-video", "--prompt", "a cat", "--seed", "3", "--review", "-o", "out.mp4")
    said = ("e", "a dog", "a", "n", "j", "brighter", "a", "e", "a red dog", "a")
    made = generate(*words, input="\n".join(said) + "\n")
    assert made.exception is None, made.exception
    again = generate("--repeat", "out.mp4.json", "-o", "again.mp4")
    assert again.exception is None, again.exception
    assert Path("again.mp4").read_bytes() == Path("out.mp4").read_bytes()


def test_ctrl_c_at_a_question_stops_the_review(generate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("text-to-video", "--prompt", "a cat", "--seed", "3", "--review", "-o", "out.mp4")
    with monkeypatch.context() as patched:
        asked = lambda *_: lambda session: signal.raise_signal(signal.SIGINT)  # noqa: E731
        patched.setattr(mora_launch.generation.command, "TerminalReviewer", asked)
        interrupted = generate(*words)
    assert interrupted.exit_code == 1
    assert "Aborted!" in interrupted.output
    assert ReviewSession(Path("out.mp4.review")).state().status == "stopped"
    other = generate(*words, "--prompt", "a dog")
    assert "out.mp4.review contains a review of another request (prompt differ)" in str(other.exception)
    resumed = generate(*words, input="a\na\na\n")
    assert resumed.exception is None, resumed.exception


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["text-to-video", "--prompt", " "], "prompt: expected a text, got none"),
        (["text-to-video", "--prompt", "x" * 100_000], "prompt: expected at most 4000 characters, got 100000"),
        (["text-to-video", "--prompt", "a", "--seconds", "0"], "seconds: expected more than 0, at most 60, got 0"),
        (["text-to-video", "--prompt", "a", "--seconds", "99"], "seconds: expected more than 0, at most 60, got 99"),
        (["text-to-video", "--prompt", "a", "--seconds", "1.3"], "the nearest lengths are 1.25 and 1.375, got 1.3"),
        (["text-to-video", "--prompt", "a", "--seconds", "1", "--fps", "8.5"], "whole frames at 8.5 a second"),
        (["text-to-video", "--prompt", "a", "--size", "64"], "--size: expected WIDTHxHEIGHT"),
        (["text-to-video", "--prompt", "a", "--size", "641x481"], "with mp4, got 641x481; the nearest is 642x482"),
        (["text-to-video", "--prompt", "a", "--fps", "0"], "fps: expected 0.1 to 120, got 0"),
        (["text-to-video", "--prompt", "a", "--codec", "h266"], "codec: expected one of libx264, mpeg4 with mp4"),
        (["text-to-video", "--prompt", "a", "--strength", "0"], "strength: expected more than 0, at most 1, got 0"),
        (["text-to-video", "--prompt", "a", "--seed", "-1"], "seed: expected 0 to"),
        (["text-to-video", "--prompt", "a", "-o", "out.avi"], "output: expected a file name that ends in"),
        (["text-to-video", "--prompt", "a", "--steps", "3"], "num_inference_steps: expected 4 to 1000, got 3"),
        (["image-to-video", "--prompt", "a"], "image: image_to_video needs a picture"),
        (["extend", "--prompt", "a", "--video", "broken.mp4"], "--video: has no video stream"),
        (["extend", "--prompt", "a", "--video", "still.gif"], "--video: expected a video of at least 2 frames, got 1"),
        (["extend", "--prompt", "a", "--video", "a.png"], "--video: is a PNG picture; expected an mp4"),
        (["extend", "--prompt", "a", "--video", "absent.mp4"], "absent.mp4: cannot be read: No such file"),
        (["connect", "--prompt", "a", "--video", "a.mp4"], "video: connect needs 2 video(s), got 1"),
        (["connect", "--prompt", "a", "--seconds", "1"], "seconds: connect takes none"),
        (["text-to-video", "--prompt", "a", "--negative-prompt", "b", "--guidance", "1"], "negative_prompt: has no"),
        (
            ["text-to-video", "--prompt", "a", "--image", "a.png"],
            "image: text_to_video takes no picture; image_to_video",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line_by_field_and_limit(generate: Any, words: list[str], said: str) -> None:
    refused = generate("-o", "out.mp4", *words)
    assert isinstance(refused.exception, MoraError), refused.exception
    assert said in str(refused.exception)
    assert "\n" not in str(refused.exception)
    assert not Path("out.mp4").exists()


def test_a_run_is_not_repeated_with_other_files_or_from_something_else(generate: Any) -> None:
    generate("extend", "--prompt", "a", "--video", "a.mp4", "-o", "out.mp4")
    Path("a.mp4").write_bytes(Path("b.mp4").read_bytes())
    for beside, said in (("out.mp4.json", "video 0 has changed since that run"), ("a.mp4", "expected the JSON")):
        refused = generate("--repeat", beside, "-o", "again.mp4")
        assert isinstance(refused.exception, MoraError)
        assert said in str(refused.exception)
