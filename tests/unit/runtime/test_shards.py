"""A manifest vouches for every byte of a checkpoint's files."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mora_runtime.errors import CheckpointError
from mora_runtime.files.durable_files import ShardFile, describe, sha256_of, verify, write_text
from mora_training.shards import ShardWriter, copied, write_tensors
from safetensors.torch import load_file


@pytest.fixture
def shard(tmp_path: Path) -> ShardFile:
    path = tmp_path / "image.0" / "weights.safetensors"
    write_tensors(path, {"w": torch.arange(6.0)})
    return describe(path, tmp_path)


def test_tensors_are_read_back_bit_for_bit(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4).t(), "b": torch.arange(5, dtype=torch.int64), "c": torch.ones(2).bfloat16()}
    write_tensors(tmp_path / "x.safetensors", tensors)
    loaded = load_file(tmp_path / "x.safetensors")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_the_same_tensors_make_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tensors(tmp_path / name, {"x": torch.arange(9.0), "y": torch.ones(3)})
    assert sha256_of(tmp_path / "a") == sha256_of(tmp_path / "b")


def test_a_whole_file_is_verified(tmp_path: Path, shard: ShardFile) -> None:
    assert shard.path == "image.0/weights.safetensors"
    assert verify(shard, tmp_path) == (tmp_path / shard.path).resolve()


def test_one_flipped_bit_is_found_wherever_it_is(tmp_path: Path, shard: ShardFile) -> None:
    path = tmp_path / shard.path
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(CheckpointError, match="it was changed or truncated"):
            verify(shard, tmp_path)


def test_a_shortened_extended_or_empty_file_is_found(tmp_path: Path, shard: ShardFile) -> None:
    whole = (tmp_path / shard.path).read_bytes()
    for content in (whole[:-1], whole + b"\0", b""):
        (tmp_path / shard.path).write_bytes(content)
        with pytest.raises(CheckpointError, match=f"expected {len(whole)} bytes .* got\n? ?{len(content)} bytes"):
            verify(shard, tmp_path)


def test_a_missing_file_and_a_directory_in_its_place_are_found(tmp_path: Path, shard: ShardFile) -> None:
    (tmp_path / shard.path).unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        verify(shard, tmp_path)
    (tmp_path / shard.path).mkdir()
    with pytest.raises(CheckpointError, match="is missing"):
        verify(shard, tmp_path)


def test_a_name_that_leaves_the_checkpoint_is_refused(tmp_path: Path, shard: ShardFile) -> None:
    root = tmp_path / "image.0"
    (root / "link").symlink_to(tmp_path)
    (tmp_path / "outside").write_text("x")
    for name in ("../outside", str(tmp_path / "outside"), "a/../../outside", "link/outside"):
        with pytest.raises(CheckpointError, match="is outside its checkpoint"):
            verify(replace(shard, path=name), root)


def test_text_is_written_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "deep" / "manifest.json", "{ü}")
    assert (tmp_path / "deep" / "manifest.json").read_text(encoding="utf-8") == "{ü}"


def test_a_disk_error_is_raised(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        write_text(tmp_path / "file" / "manifest.json", "x")


def test_a_writer_writes_what_it_was_given_while_the_original_changes(tmp_path: Path) -> None:
    weight = torch.ones(1000)
    files = {tmp_path / "a" / "weights.safetensors": copied({"w": weight}), tmp_path / "a" / "config.json": "{}"}
    writer = ShardWriter(tmp_path, files)
    weight.zero_()
    written = writer.result(60)
    assert writer.is_done
    assert [file.path for file in written] == ["a/weights.safetensors", "a/config.json"]
    assert torch.equal(load_file(verify(written[0], tmp_path))["w"], torch.ones(1000))
    assert verify(written[1], tmp_path).read_text() == "{}"


def test_a_disk_error_is_raised_by_the_result(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="could not be written: File exists"):
        ShardWriter(tmp_path, {tmp_path / "file" / "weights": {"w": torch.ones(1)}}).result(60)
