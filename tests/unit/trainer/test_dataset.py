"""The dataset: every bad line is refused with its number, the order of samples is a pure function of the seed."""

import json
from pathlib import Path

import numpy as np
import pytest
from mora_data.clips import read_clip
from mora_data.dataset import read_dataset, resolve_dataset
from mora_data.moving_shapes import made_clip
from mora_data.sample_order import SampleOrder
from mora_data.settings import ClipShape, DataSettings
from mora_data.video_writer import write_lossless, write_video
from mora_runtime.errors import DatasetError


def write_lines(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_made_clips_resolve_to_a_dataset_that_decodes(tmp_path: Path, shape: ClipShape) -> None:
    dataset = resolve_dataset(DataSettings(num_clips=4), shape, tmp_path, ())
    samples = read_dataset(dataset)
    assert len({sample.prompt for sample in samples}) == 4
    clip = samples[0].clip(shape)
    assert clip.shape == (9, 32, 48, 3)
    made = made_clip(0, shape)[1]
    assert np.abs(clip.astype(int) - made).mean() < 8, "the decoded clip must be the one that was made"


def test_a_video_is_cut_into_clips_that_differ(tmp_path: Path, shape: ClipShape) -> None:
    long_shape = ClipShape(num_frames=40, height=32, width=48, fps=8)
    video = tmp_path / "red_circle.mp4"
    write_video(video, made_clip(0, long_shape)[1], 8)
    samples = read_dataset(resolve_dataset(DataSettings(path=str(video), num_clips=3), shape, tmp_path / "run", ()))
    assert [sample.prompt for sample in samples] == ["red circle"] * 3
    first, last = samples[0].clip(shape), samples[-1].clip(shape)
    assert np.abs(first.astype(int) - last).mean() > 5


def test_frames_are_taken_at_the_requested_rate(tmp_path: Path) -> None:
    ramp = np.stack([np.full((16, 16, 3), 10 * i, dtype=np.uint8) for i in range(24)])
    path = tmp_path / "ramp.mp4"
    write_video(path, ramp, 24)
    taken = read_clip(path, ClipShape(num_frames=4, height=16, width=16), start_s=0.25, fps=8)
    assert np.abs(taken.mean(axis=(1, 2, 3)) - [60, 90, 120, 150]).max() < 6


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "is not JSON"),
        ("[1]", "expected an object"),
        ('{"prompt": "x"}', "`video` must be a path"),
        ('{"prompt": "", "video": "v"}', "`prompt` must be a text"),
        ('{"prompt": "x", "video": "v", "fsp": 8}', "unknown key `fsp`"),
        ('{"prompt": "x", "video": "v", "start_s": -1}', "`start_s` must be a number"),
        ('{"prompt": "x", "video": "v", "fps": true}', "`fps` must be a number"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, clip_file: Path, line: str, words: str) -> None:
    good = json.dumps({"prompt": "a clip", "video": str(clip_file)})
    path = write_lines(tmp_path / "data.jsonl", good, "", line)
    with pytest.raises(DatasetError, match=rf"data\.jsonl:3: .*{words}"):
        read_dataset(path)


def test_an_undecodable_video_is_named_by_its_sample(tmp_path: Path, clip_file: Path, shape: ClipShape) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"\x00" * 400)
    lines = [json.dumps({"prompt": "x", "video": name}) for name in (clip_file.name, "broken.mp4")]
    path = write_lines(tmp_path / "data.jsonl", *lines)
    with pytest.raises(DatasetError, match=r"data\.jsonl:2: .*broken.mp4: is of no known kind"):
        resolve_dataset(DataSettings(path=str(path)), shape, tmp_path / "run", ())


def test_a_video_that_is_too_short_says_how_much_is_missing(tmp_path: Path, clip_file: Path) -> None:
    shape = ClipShape(num_frames=21, height=32, width=48, fps=8)
    path = write_lines(tmp_path / "data.jsonl", json.dumps({"prompt": "x", "video": str(clip_file)}))
    with pytest.raises(DatasetError, match=r"expected 21 frames from 0\.00 s on, got 9"):
        resolve_dataset(DataSettings(path=str(path)), shape, tmp_path / "run", ())


def test_an_empty_or_absent_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="has no samples"):
        read_dataset(write_lines(tmp_path / "empty.jsonl", ""))
    with pytest.raises(DatasetError, match="cannot be read"):
        read_dataset(tmp_path / "absent.jsonl")


def test_the_order_is_a_permutation_of_each_epoch_and_depends_on_the_seed() -> None:
    order = SampleOrder(10, seed=1, shuffle=True)
    epochs = [[order.sample_index(place) for place in range(start, start + 10)] for start in (0, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert [SampleOrder(10, seed=2, shuffle=True).sample_index(place) for place in range(10)] != epochs[0]
    assert [SampleOrder(10, seed=1, shuffle=False).sample_index(place) for place in range(12)] == [*range(10), 0, 1]


def test_noise_seeds_never_repeat_and_fit_a_torch_generator() -> None:
    order = SampleOrder(4, seed=3, shuffle=True)
    seeds = {order.noise_seed(place) for place in range(1000)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_lossless_clip_is_read_bit_for_bit_and_written_the_same_twice(tmp_path: Path) -> None:
    shape = ClipShape(num_frames=9, height=96, width=64, fps=8)
    clip = np.random.default_rng(0).integers(0, 256, (9, 96, 64, 3), dtype=np.uint8)
    for name in ("a.mkv", "b.mkv"):
        write_lossless(tmp_path / name, clip, 8.0)
    assert (read_clip(tmp_path / "a.mkv", shape) == clip).all()
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()


def test_seeds_of_agents_are_read_and_written_and_an_unknown_agent_is_refused(
    tmp_path: Path, clip_file: Path, shape: ClipShape
) -> None:
    line = {"prompt": "x", "video": str(clip_file), "seeds": {"first": 3, "second": 4}}
    path = write_lines(tmp_path / "data.jsonl", json.dumps(line))
    resolved = resolve_dataset(DataSettings(path=str(path)), shape, tmp_path / "run", ("first", "second", "last"))
    assert read_dataset(resolved)[0].seeds == {"first": 3, "second": 4}
    with pytest.raises(DatasetError, match=r"jsonl:1: `seeds` names the agent `second`; the chain has first, last"):
        resolve_dataset(DataSettings(path=str(path)), shape, tmp_path / "run", ("first", "last"))


def test_the_first_editions_seed_of_the_image_agent_still_loads(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "data.jsonl", json.dumps({"prompt": "x", "video": "v.mp4", "image_seed": 7}))
    assert read_dataset(path)[0].seeds == {"image": 7}
