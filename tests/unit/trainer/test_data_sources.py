"""What users bring as a data set: folders, tables, odd encodings and names, several faults at once."""

import json
import shutil
import unicodedata
from pathlib import Path

import pytest
from mora_data.dataset import read_dataset, resolve_dataset
from mora_data.sample import Sample
from mora_data.settings import ClipShape, DataSettings
from mora_runtime.errors import DatasetError
from PIL import Image


def resolved(path: Path, shape: ClipShape, tmp_path: Path, **others: object) -> list[Sample]:
    data = DataSettings(path=str(path), **others)  # type: ignore[arg-type]
    return read_dataset(resolve_dataset(data, shape, tmp_path / "run", ()))


@pytest.fixture
def folder(tmp_path: Path, clip_file: Path) -> Path:
    """A folder with two clips."""
    place = tmp_path / "clips"
    place.mkdir()
    for name in ("a.mp4", "b.MP4"):
        shutil.copy(clip_file, place / name)
    return place


def test_a_folder_of_videos_with_captions_next_to_them(folder: Path, shape: ClipShape, tmp_path: Path) -> None:
    (folder / "a.txt").write_bytes(b"\xef\xbb\xbfa red\r\nball\r\n")
    (folder / "b.caption").write_text("a green ball\n")
    (folder / "README.txt").write_text("where the clips come from")
    samples = resolved(folder, shape, tmp_path)
    assert [(sample.prompt, sample.video.name) for sample in samples] == [
        ("a red ball", "a.mp4"),
        ("a green ball", "b.MP4"),
    ]


def test_a_missing_and_an_empty_caption_are_named_with_their_files(
    folder: Path, shape: ClipShape, tmp_path: Path
) -> None:
    (folder / "a.txt").write_text(" \n")
    with pytest.raises(DatasetError) as caught:
        resolved(folder, shape, tmp_path)
    assert "2 samples cannot be used" in str(caught.value)
    assert "a.mp4: its caption a.txt is empty" in str(caught.value)
    assert "b.MP4: has no caption; expected b.txt next to it" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.jsonl", '{"file_name": "a.mp4", "text": "red"}\n{"file_name": "b.MP4", "text": "green"}\n'),
        ("metadata.csv", 'file_name,text,width\r\na.mp4,red,48\r\nb.MP4,"green",48\r\n'),
        ("metadata.tsv", "video\tprompt\na.mp4\tred\nb.MP4\tgreen\n"),
    ],
)
def test_a_videofolder_and_its_metadata_file_alone(
    folder: Path, shape: ClipShape, tmp_path: Path, name: str, text: str
) -> None:
    (folder / name).write_text(text, newline="")
    for path in (folder, folder / name):
        assert [sample.prompt for sample in resolved(path, shape, tmp_path)] == ["red", "green"]


def test_a_table_of_a_spreadsheet(folder: Path, shape: ClipShape, tmp_path: Path) -> None:
    table = folder / "CLIPS.CSV"
    table.write_text('\ufeffprompt;video;start_s;fps\n"red; with a semicolon";a.mp4;0.25;4\n', encoding="utf-8")
    short = ClipShape(num_frames=2, height=32, width=48, fps=8)
    (sample,) = resolved(table, short, tmp_path)
    assert (sample.prompt, sample.start_s, sample.fps) == ("red; with a semicolon", 0.25, 4.0)
    table.write_text("prompt;video;start_s\nred;a.mp4;soon\n")
    with pytest.raises(DatasetError, match=r"CLIPS\.CSV:2: a.mp4: `start_s` must be a number, got 'soon'"):
        resolved(table, short, tmp_path)
    table.write_text("name,file\nx,a.mp4\n")
    with pytest.raises(DatasetError, match=r"expected a column `video` .* in the first line, got name, file"):
        resolved(table, short, tmp_path)
    table.write_text("prompt,video\nred,a.mp4,too,many\n")
    with pytest.raises(DatasetError, match=r"CLIPS\.CSV:2: a.mp4: has more cells"):
        resolved(table, short, tmp_path)


@pytest.mark.parametrize(
    "caption", ["a red ball\u2028rolls \U0001f3c0 caf\u00e9", "line\u0085next", "form\x0cfeed", "\u2029"]
)
def test_a_line_separator_in_a_caption_does_not_end_the_line(
    folder: Path, shape: ClipShape, tmp_path: Path, caption: str
) -> None:
    caption += "end"
    path = folder / "D.JSONL"
    lines = [json.dumps({"prompt": text, "video": "a.mp4"}, ensure_ascii=False) for text in (caption, "next")]
    path.write_text("\r\n".join(lines) + "\r\n", encoding="utf-8-sig", newline="")
    assert [sample.prompt for sample in resolved(path, shape, tmp_path)] == [caption, "next"]
    path.write_text("\n".join([*lines, "{"]), encoding="utf-8", newline="")
    with pytest.raises(DatasetError, match=r"D\.JSONL:3: is not JSON"):
        read_dataset(path)


def test_utf_16_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"prompt": "x", "video": "v.mp4"}\n', encoding="utf-16")
    with pytest.raises(DatasetError, match="is UTF-16; save it as UTF-8"):
        read_dataset(path)


def test_every_fault_is_told_at_once_by_its_line_and_can_be_left_out(
    folder: Path, shape: ClipShape, tmp_path: Path
) -> None:
    (folder / "zero.mp4").write_bytes(b"")
    (folder / "page.mp4").write_text("<html>404</html>")
    names = ["a.mp4", None, "zero.mp4", "page.mp4", "gone.mp4", "b.MP4"]
    path = folder / "d.jsonl"
    path.write_text("".join("\n" if n is None else json.dumps({"prompt": "x", "video": n}) + "\n" for n in names))
    with pytest.raises(DatasetError) as caught:
        resolved(path, shape, tmp_path)
    said = str(caught.value)
    assert "3 samples cannot be used" in said
    for line, name in ((3, "zero.mp4"), (4, "page.mp4"), (5, "gone.mp4")):
        assert f"d.jsonl:{line}: " in said
        assert name in said
    assert "data.skip_bad=true" in said
    told: list[str] = []
    data = DataSettings(path=str(path), skip_bad=True)
    dataset = resolve_dataset(data, shape, tmp_path / "run", (), tell=told.append)
    assert [sample.video.name for sample in read_dataset(dataset)] == ["a.mp4", "b.MP4"]
    (line,) = told
    assert "3 of 5 samples are left out" in line
    assert "d.jsonl:4: " in line


def test_nothing_is_left_of_a_data_set_that_is_all_bad(folder: Path, shape: ClipShape, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="none of its 2 samples can be used"):
        resolved(folder, shape, tmp_path, skip_bad=True)


def test_several_captions_of_one_clip_are_several_samples(folder: Path, shape: ClipShape, tmp_path: Path) -> None:
    path = folder / "d.jsonl"
    path.write_text('{"prompts": ["red", "a red ball"], "video": "a.mp4"}\n')
    assert [sample.prompt for sample in resolved(path, shape, tmp_path)] == ["red", "a red ball"]
    for line, words in (
        ('{"prompts": [], "video": "a.mp4"}', "`prompts` must be a list of 1 to 100 texts"),
        ('{"prompts": ["x"], "prompt": "y", "video": "a.mp4"}', "expected one of them"),
        ('{"prompt": "x", "text": "y", "video": "a.mp4"}', "`prompt` and `text` mean the same"),
        ('{"promt": "x", "video": "a.mp4"}', "unknown key `promt`; did you mean `prompt`"),
    ):
        path.write_text(line + "\n")
        with pytest.raises(DatasetError, match=words):
            read_dataset(path)


def test_names_with_composed_and_decomposed_letters_and_of_home_are_found(
    folder: Path, shape: ClipShape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.mp4").rename(folder / unicodedata.normalize("NFD", "caf\u00e9.mp4"))
    path = folder / "d.jsonl"
    monkeypatch.setenv("HOME", str(tmp_path))
    names = [unicodedata.normalize("NFC", "caf\u00e9.mp4"), "~/clips/b.MP4"]
    path.write_text("".join(json.dumps({"prompt": "x", "video": name}, ensure_ascii=False) + "\n" for name in names))
    assert len(resolved(path, shape, tmp_path)) == 2
    assert len(resolved(Path("~/clips/d.jsonl"), shape, tmp_path)) == 2


def test_a_path_of_windows_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"prompt": "x", "video": "C:\\clips\\a.mp4"}) + "\n")
    with pytest.raises(DatasetError, match="is a path of Windows"):
        read_dataset(path)


def test_a_folder_without_videos_and_a_missing_path_say_what_is_expected(shape: ClipShape, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="is a folder without videos; expected videos with captions"):
        resolved(tmp_path / "empty", shape, tmp_path)
    with pytest.raises(DatasetError, match=r"no such file .* expected a video, a folder of videos"):
        resolved(tmp_path / "absent", shape, tmp_path)


def test_a_folder_takes_animated_pictures_and_leaves_still_ones(folder: Path, shape: ClipShape, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (64, 64), (20 * n, 0, 0)) for n in range(12)]
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:], duration=100)
    for name in ("poster.webp", "poster.avif", "poster.png"):
        frames[0].save(folder / name)
    shutil.copy(folder / "a.mp4", folder / "phone.3gp")
    for name in ("a", "b", "moving", "phone"):
        (folder / f"{name}.txt").write_text(name)
    found = [sample.video.name for sample in resolved(folder, shape, tmp_path)]
    assert found == ["a.mp4", "b.MP4", "moving.webp", "phone.3gp"]


def test_a_drawn_clip_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"a drawn clip of 930001 frames of 640x480 has .* bytes, expected at most"):
        resolve_dataset(DataSettings(), ClipShape(num_frames=930_001, height=480, width=640), tmp_path, ())
