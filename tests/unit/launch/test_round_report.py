"""A round's page: what it shows, and that no text of a model, judge or reviewer becomes markup."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from mora_data.moving_shapes import MovingShape
from mora_data.video_writer import write_lossless, write_video
from mora_launch.rounds.evaluation import figures
from mora_launch.rounds.judging.judge import Verdict
from mora_launch.rounds.report import write_report
from mora_launch.rounds.store import RoundFolder, SetDecision
from mora_launch.web.page_templates import page_templates

from tests.unit.launch.undecided_round import CONFIG, make_undecided_round

MARKUP = "<script>alert('\"')</script>"


class Page(HTMLParser):
    """Names of the elements, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.text += " "

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = tmp_path_factory.mktemp("run")
    make_undecided_round(run)
    folder = RoundFolder(run, 1)
    folder.set(0).write_decision(SetDecision(1, "reviewer", reviewer=MARKUP, reason=MARKUP))
    folder.set(1).write_decision(SetDecision(None, "rule"))
    folder.set(2).write_verdict(0, Verdict(MARKUP, "flicker", (1, 0), None, (MARKUP, "again"), note=MARKUP))
    write_report(run, folder, CONFIG)
    return folder.report.read_text(encoding="utf-8")


def test_the_page_shows_every_set_with_its_candidates_and_its_decision(content: str) -> None:
    text = re.sub(r"\s+", " ", Page(content).text)
    assert content.count("<video") == 6
    assert content.count('class="cell chosen"') == 1
    assert "1 taken, 1 dropped, 1 waiting for review, 1 decided by a person" in text
    assert "candidate 2 taken: reviewer" in text
    assert "dropped: rule" in text
    assert "waits for review" in text
    assert "not trained yet" in text


def test_foreign_text_is_shown_and_never_becomes_markup(content: str) -> None:
    page = Page(content)
    assert "script" not in page.elements
    assert page.text.count(MARKUP) >= 4  # reviewer, reason, judge, raw answer, note


def test_the_same_round_gives_the_same_bytes(content: str, tmp_path: Path) -> None:
    make_undecided_round(tmp_path)
    folder = RoundFolder(tmp_path, 1)
    write_report(tmp_path, folder, CONFIG)
    first = folder.report.read_bytes()
    write_report(tmp_path, folder, CONFIG)
    assert folder.report.read_bytes() == first
    assert first.decode() != content


@pytest.mark.parametrize("package", ["mora_launch.rounds", "mora_launch.profiling.report"])
def test_templates_of_pages_escape_values_and_refuse_missing_ones(package: str) -> None:
    templates = page_templates(package)
    assert templates.from_string("{{ text }} {{ 0.125|percent(1) }}").render(text="<b>") == "&lt;b&gt; 12.5%"
    with pytest.raises(UndefinedError, match="'text' is undefined"):
        templates.from_string("{{ text }}").render()
    assert templates.list_templates()


def write_held_out(run: Path, step: int, *shown: tuple[str, MovingShape]) -> None:
    """Videos for held-out prompts: prompt and what the video shows instead."""
    for number, (prompt, shape) in enumerate(shown):
        folder = run / "evaluation" / f"step-{step:08d}" / f"{number:03d}" / "candidate-0"
        folder.mkdir(parents=True)
        clip = shape.clip(CONFIG.clip)
        write_lossless(folder / "frames.mkv", clip, CONFIG.clip.fps)
        write_video(folder / "video.mp4", clip, CONFIG.clip.fps)
        (folder / "candidate.json").write_text(json.dumps({"prompt": prompt}))


def test_all_held_out_pairs_are_shown_with_their_prompts_and_how_well_they_agree(tmp_path: Path) -> None:
    make_undecided_round(tmp_path)
    red, blue = MovingShape("red", "circle", "left", "slowly"), MovingShape("blue", "square", "up", "quickly")
    write_held_out(tmp_path, 0, (red.prompt, blue), (blue.prompt, blue))
    write_held_out(tmp_path, 4, (red.prompt, red), (blue.prompt, blue))
    folder = RoundFolder(tmp_path, 1)
    write_report(tmp_path, folder, CONFIG)
    page = folder.report.read_text(encoding="utf-8")
    for prompt in (red.prompt, blue.prompt):
        assert f"<p>{prompt}</p>" in page
    assert page.count("evaluation/step-") == 4
    text = re.sub(r"\s+", " ", Page(page).text)
    assert re.search(r"agrees in colour 0\.500 ± 0\.980 1\.000 ± 0\.000", text), text
    assert "agrees in all 0.500" in text


def test_prompts_that_describe_no_shape_have_no_agreement(tmp_path: Path) -> None:
    red = MovingShape("red", "circle", "left", "slowly")
    write_held_out(tmp_path, 0, ("a cat", red), (red.prompt, red))
    assert [name for name in figures(tmp_path, 0, CONFIG.clip) if name.startswith("agrees")] == []
