"""`mora data check`: samples and faults by line, as a player shows them, and their frames."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from kinds_folder import UNUSABLE, make_kinds
from made_files import corners, greys, quad, turn, write_film
from mora_data.checking.data_check import check_data
from mora_data.settings import ClipShape, DataSettings
from mora_launch.cli.data import data as data_command
from mora_runtime.errors import DatasetError
from PIL import Image

SHAPE = ClipShape(num_frames=9, height=64, width=64)


@pytest.fixture
def lines_file(tmp_path: Path) -> Path:
    """The lines of the field: good, empty, zero bytes, turned, an HTML page, a missing path, several captions."""
    write_film(tmp_path / "good.mp4", greys(range(60)))
    (tmp_path / "zero.mp4").touch()
    turn(write_film(tmp_path / "flat.mp4", [quad(96, 64)] * 60), tmp_path / "rot.mp4", (0, 1, -1, 0))
    (tmp_path / "page.mp4").write_text("<html>404</html>")
    lines = [
        json.dumps({"prompt": "a", "video": "good.mp4"}),
        "",
        json.dumps({"prompt": "b", "video": "zero.mp4"}),
        json.dumps({"prompt": "c", "video": "rot.mp4"}),
        json.dumps({"prompt": "d", "video": "page.mp4"}),
        json.dumps({"prompt": "e", "video": "missing.mp4"}),
        json.dumps({"prompts": ["f", "g"], "video": "good.mp4", "start_s": 1.0}),
        json.dumps({"promt": "h", "video": "good.mp4"}),
    ]
    file = tmp_path / "d.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_every_sample_and_every_fault_by_line(lines_file: Path) -> None:
    found = check_data(DataSettings(path=str(lines_file)), SHAPE)
    shown = [(each.line, each.video, each.prompts, each.width, each.height) for each in found.samples]
    assert shown == [
        (1, "good.mp4", ["a"], 64, 64), (4, "rot.mp4", ["c"], 64, 96), (7, "good.mp4", ["f", "g"], 64, 64),
    ]  # fmt: skip
    assert all((each.fps, round(each.duration_s, 3)) == (30.0, 2.0) for each in found.samples)
    assert [(each.line, each.video) for each in found.faults] == [
        (3, "zero.mp4"), (5, "page.mp4"), (6, "missing.mp4"), (8, "good.mp4"),
    ]  # fmt: skip
    words = ["is an empty file", "is an HTML page", "No such file", "unknown key `promt`"]
    assert all(word in each.text for word, each in zip(words, found.faults, strict=True))


def test_the_command_writes_json_a_sheet_and_frames(lines_file: Path, tmp_path: Path) -> None:
    file, sheet, frames = tmp_path / "found.json", tmp_path / "sheet.png", tmp_path / "frames"
    arguments = ["check", str(lines_file), "--json", str(file), "--sheet", str(sheet), "--frames", str(frames)]
    done = CliRunner().invoke(data_command, arguments)
    assert done.exit_code == 2
    content = json.loads(file.read_text())
    assert set(content["samples"][0]) == {"line", "video", "prompts", "width", "height", "fps", "duration_s"}
    assert set(content["faults"][0]) == {"line", "video", "fault"}
    with Image.open(sheet) as picture:
        assert picture.height > 4 * 96, "a row for each of the four that can be used"
    assert sorted(int(each.name) for each in frames.iterdir()) == [1, 4, 7]
    times_s = json.loads((frames / "7" / "times.json").read_text())
    assert len(times_s) == 30 == len(list((frames / "7").glob("*.png")))
    assert times_s[:2] == pytest.approx([1.0, 1.0 + 1 / 30], abs=1e-3)
    with Image.open(frames / "4" / "0.png") as picture:
        assert corners(np.asarray(picture)) == ["blue", "red", "white", "green"]


def test_data_without_faults_ends_with_0(tmp_path: Path) -> None:
    path = write_film(tmp_path / "good.mp4", greys(range(60)))
    assert CliRunner().invoke(data_command, ["check", str(path)]).exit_code == 0


def test_one_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(quad(96, 64)).save(tmp_path / "p.png", exif=exif)
    found = check_data(DataSettings(path=str(tmp_path / "p.png")), SHAPE, tmp_path / "frames")
    assert [(each.width, each.height, each.fps) for each in found.samples] == [(64, 96, 0.0)]
    with Image.open(tmp_path / "frames" / "1" / "0.png") as picture:
        assert corners(np.asarray(picture)) == ["blue", "red", "white", "green"]


def test_a_video_that_is_too_short_is_a_fault_and_its_frames_are_written(tmp_path: Path) -> None:
    path = write_film(tmp_path / "short.mp4", greys([10, 20, 30]))
    found = check_data(DataSettings(path=str(path)), SHAPE, tmp_path / "frames")
    assert not found.samples
    assert "expected 9 frames from 0.00 s on, got 3" in found.faults[0].text
    assert len(list((tmp_path / "frames" / "1").glob("*.png"))) == 3


def test_a_missing_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="No such file"):
        check_data(DataSettings(path=str(tmp_path / "absent.jsonl")), SHAPE)


def test_every_kind_of_file_that_people_bring(tmp_path: Path) -> None:
    found = check_data(DataSettings(path=str(make_kinds(tmp_path))), SHAPE)
    assert len(found.samples) + len(found.faults) >= 30
    assert {each.video: True for each in found.faults} == dict.fromkeys(UNUSABLE, True)
    assert all(UNUSABLE[each.video] in each.text for each in found.faults)
    shown = {each.video: (each.width, each.height) for each in found.samples}
    assert shown.pop("turned-90.mp4") == shown.pop("turned-270.mp4") == (96, 160)
    assert shown.pop("pal.mp4") == (77, 58)
    assert shown.pop("uneven.mp4") == (64, 64)
    assert set(shown.values()) == {(160, 96)}
    lasts_s = {each.video: each.duration_s for each in found.samples}
    assert lasts_s["late.mkv"] == pytest.approx(2.0, abs=0.06)


def test_clips_that_mora_draws() -> None:
    found = check_data(DataSettings(num_clips=3), SHAPE)
    assert [(each.width, each.height) for each in found.samples] == [(64, 64)]
    assert len(found.samples[0].prompts) == 3
    assert not found.faults
