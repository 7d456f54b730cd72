"""Files of strangers: checkpoints. No name in a manifest leads outside its folder; only checked bytes are copied."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mora_launch.checkpoints.run_checkpoints import Checkpoints
from mora_launch.checkpoints.trained_model import trained_model
from mora_launch.cli import cli
from mora_runtime.errors import CheckpointError
from mora_runtime.files.shard_file import ShardFile, verify
from strange_run import FOLDER, WEIGHTS, StrangeRun

Refused = Callable[[StrangeRun, str], None]


def test_an_honest_run_is_verified_exported_and_loaded(stranger: StrangeRun, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert CliRunner().invoke(cli, ["checkpoint", "verify", str(stranger.path)]).exit_code == 0
    assert CliRunner().invoke(cli, ["checkpoint", "export", str(stranger.path), "-o", str(output)]).exit_code == 0
    copy = output / "image" / "diffusion_pytorch_model.safetensors"
    assert copy.read_bytes() == (stranger.root / WEIGHTS).read_bytes()
    assert trained_model(stranger.path, None).step == 8
    assert sorted(path.name for path in output.iterdir()) == ["exported.json", "image"]


@pytest.mark.parametrize(
    "name",
    [
        "image/weights/../../.bashrc", "../outside", "a/../../x", "/etc/passwd", "//etc/passwd", "..", "image/..",
    ],
)  # fmt: skip
def test_a_name_that_leads_elsewhere_is_refused(stranger: StrangeRun, refused: Refused, name: str) -> None:
    outside = stranger.path / "outside"
    outside.write_text("x")
    stranger.add(name, outside)
    refused(stranger, "is outside its checkpoint")


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "./image/x", "image//x", "image/./x", "image/x/", "image/.bashrc", "image\\x", "image/a\\..\\b",
        "image/a\0b", "image/a\x1b[2J", "image/a\nb", "image/\u202egnp", "image/ａ", "image/é", "image/ x", "image/-rf",
        "image/" + "a" * 600, "/".join(["image", *"abcdefgh"]), "image/~", "image/*", "image/$HOME", "image/\x9b",
    ],
)  # fmt: skip
def test_an_odd_name_is_refused(stranger: StrangeRun, refused: Refused, name: str) -> None:
    outside = stranger.path / "outside"
    outside.write_text("x")
    stranger.add(name, outside)
    refused(stranger, "mora did not write this manifest")


@pytest.mark.parametrize("name", ["Image/weights/x", "x.y/weights/x", "image", "exported.json", "9/x", "a" * 33 + "/x"])
def test_a_path_that_is_not_role_and_file_is_refused(stranger: StrangeRun, refused: Refused, name: str) -> None:
    real = stranger.root / name
    real.parent.mkdir(parents=True, exist_ok=True)
    if not real.exists():
        real.write_text("x")
    stranger.add(name, stranger.root / WEIGHTS)
    refused(stranger, "expected ROLE/FILE")


@pytest.mark.parametrize("name", [WEIGHTS, WEIGHTS.replace("weights", "Weights")])
def test_a_repeated_name_is_refused(stranger: StrangeRun, refused: Refused, name: str) -> None:
    stranger.add(name, stranger.root / WEIGHTS)
    refused(stranger, "occurs twice")


def test_a_link_in_place_of_a_file_is_refused(stranger: StrangeRun, refused: Refused, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    (stranger.root / WEIGHTS).rename(moved)
    (stranger.root / WEIGHTS).symlink_to(moved)
    refused(stranger, "a link, device or pipe")
    with pytest.raises(CheckpointError, match="symbolic link"):
        verify(next(f for f in Checkpoints.of_run(stranger.path).find(8).files if f.path == WEIGHTS), stranger.root)


@pytest.mark.parametrize("part", ["image", "image/weights"])
def test_a_link_in_place_of_a_folder_is_refused(
    stranger: StrangeRun, refused: Refused, tmp_path: Path, part: str
) -> None:
    (stranger.root / part).rename(tmp_path / "moved")
    (stranger.root / part).symlink_to(tmp_path / "moved")
    refused(stranger, "a link, device or pipe")
    with pytest.raises(CheckpointError, match="is outside its checkpoint"):
        verify(next(f for f in Checkpoints.of_run(stranger.path).find(8).files if f.path == WEIGHTS), stranger.root)


@pytest.mark.parametrize("name", [FOLDER, f"{FOLDER}/manifest.json", "COMMITTED"])
def test_a_link_in_place_of_the_checkpoint_or_its_records_is_refused(
    stranger: StrangeRun, refused: Refused, tmp_path: Path, name: str
) -> None:
    path = stranger.checkpoints / name
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    refused(stranger, "cannot be read")


def test_a_link_in_place_of_the_checkpoints_folder_is_refused(
    stranger: StrangeRun, refused: Refused, tmp_path: Path
) -> None:
    stranger.checkpoints.rename(tmp_path / "moved")
    stranger.checkpoints.symlink_to(tmp_path / "moved")
    refused(stranger, "is a symbolic link")


def test_a_dangling_link_as_record_does_not_count_as_missing(stranger: StrangeRun) -> None:
    (stranger.checkpoints / "COMMITTED").unlink()
    (stranger.checkpoints / "COMMITTED").symlink_to("nowhere")
    with pytest.raises(CheckpointError, match="COMMITTED: cannot be read"):
        Checkpoints.of_run(stranger.path).find(None)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", [WEIGHTS, "manifest.json", "../COMMITTED"])
def test_a_pipe_never_blocks_a_command(stranger: StrangeRun, refused: Refused, name: str) -> None:
    (stranger.root / name).unlink()
    os.mkfifo(stranger.root / name)
    refused(stranger, "link, device or pipe" if name == WEIGHTS else "expected a regular file")


def test_a_socket_or_a_folder_in_place_of_a_file_is_refused(stranger: StrangeRun, refused: Refused) -> None:
    (stranger.root / WEIGHTS).unlink()
    (stranger.root / WEIGHTS).mkdir()
    refused(stranger, "is missing")
    (stranger.root / WEIGHTS).rmdir()
    here = os.getcwd()
    os.chdir(stranger.root / "image" / "weights")  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("diffusion_pytorch_model.safetensors")
    os.chdir(here)
    refused(stranger, "a link, device or pipe")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step", True), ("step", -1), ("step", 8.0), ("step", "8"), ("step", None), ("step", 10**30), ("step", 9),
        ("num_replicas", 0), ("num_replicas", False), ("num_replicas", 1.0), ("num_replicas", [1]),
        ("lock_hashes", []), ("lock_hashes", {"control": 1}), ("lock_hashes", {"control": "x" * 10000}),
        ("folder", "step-00000009"), ("folder", 8), ("folder", None), ("files", {}), ("files", None), ("files", [1]),
        ("files", [[]]), ("format", 2), ("format", True), ("format", "1"), ("unknown\x1b", 1),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_refused(stranger: StrangeRun, refused: Refused, key: str, value: Any) -> None:
    stranger.change(lambda content: content.update({key: value}))
    refused(stranger, "")


@pytest.mark.parametrize("key", ["step", "folder", "num_replicas", "lock_hashes", "files"])
def test_a_missing_value_is_named(stranger: StrangeRun, refused: Refused, key: str) -> None:
    stranger.change(lambda content: content.pop(key))
    refused(stranger, f"lacks `{key}`")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("nbytes", True), ("nbytes", -1), ("nbytes", 31.0), ("nbytes", "31"), ("nbytes", None), ("nbytes", 1 << 70),
        ("sha256", "x" * 64), ("sha256", ""), ("sha256", "A" * 64), ("sha256", "a" * 63), ("sha256", 1),
        ("path", 1), ("path", None), ("path", ["image"]), ("mode", "0777"),
    ],
)  # fmt: skip
def test_a_file_entry_of_another_kind_is_refused(stranger: StrangeRun, refused: Refused, key: str, value: Any) -> None:
    stranger.change(lambda content: content["files"][0].update({key: value}))
    refused(stranger, "")


@pytest.mark.parametrize(
    "folder", ["step-8", "../..", "step-0000000８", f"{FOLDER}/", "", None, 8, ["x"], f"{FOLDER}\n"]
)
def test_a_record_that_names_no_checkpoint_is_refused(stranger: StrangeRun, refused: Refused, folder: Any) -> None:
    (stranger.checkpoints / "COMMITTED").write_text(json.dumps({"step": 8, "folder": folder}))
    refused(stranger, "`folder` must be")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[" * 100_000, "nesting"),
        (b'{"a":' * 50_000, "nesting"),
        (b"[" * 80 + b"]" * 80, "nesting"),
        (b'{"folder": "step-00000008", "folder": "step-00000009"}', "occurs twice"),
        (b'{"step": NaN}', "finite"),
        (b'{"step": 1e999}', "finite"),
        (b'{"step": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"folder": "\\ud800"}', "surrogate"),
        (b"\xff\xfe", "not UTF-8"),
        (b"", "is not JSON"),
        (b"[]", "expected a JSON object"),
        (b" " * (17 << 20), "bytes"),
        (b'{"files": [' + b"0," * 2_100_000 + b"0]}", "values"),
    ],
)
def test_an_invalid_manifest_is_refused(stranger: StrangeRun, refused: Refused, text: bytes, words: str) -> None:
    (stranger.root / "manifest.json").write_bytes(text)
    refused(stranger, words)


def test_a_manifest_of_too_many_files_is_refused(stranger: StrangeRun, refused: Refused) -> None:
    entry = {"path": "image/x", "nbytes": 0, "sha256": "0" * 64}
    stranger.change(lambda content: content.update(files=[entry] * 100_001))
    refused(stranger, "a list of at most")


@pytest.mark.parametrize(
    "name",
    ["image/weights/diffusion_pytorch_model.bin", "image/weights/model.safetensors.index.json", "video/weights/x.py"],
)
def test_a_file_that_the_manifest_does_not_list_is_not_loaded(
    stranger: StrangeRun, refused: Refused, name: str
) -> None:
    (stranger.root / name).parent.mkdir(parents=True, exist_ok=True)
    (stranger.root / name).write_text("x")
    refused(stranger, "which its manifest does not name")


def test_an_export_that_meets_a_damaged_file_leaves_nothing(stranger: StrangeRun, tmp_path: Path) -> None:
    (stranger.root / "image/weights/config.json").write_text("another content of the same kin")
    result = CliRunner().invoke(cli, ["checkpoint", "export", str(stranger.path), "-o", str(tmp_path / "new" / "out")])
    assert isinstance(result.exception, CheckpointError)
    assert "nothing was exported" in str(result.exception)
    assert not (tmp_path / "new" / "out").exists()
    (tmp_path / "old").mkdir()
    result = CliRunner().invoke(cli, ["checkpoint", "export", str(stranger.path), "-o", str(tmp_path / "old")])
    assert "nothing was exported" in str(result.exception)
    assert list((tmp_path / "old").iterdir()) == []


def test_an_export_writes_through_no_link_in_its_folder(stranger: StrangeRun, tmp_path: Path) -> None:
    output, precious = tmp_path / "out", tmp_path / "precious"
    precious.write_text("precious")
    output.mkdir()
    (output / "image").symlink_to(tmp_path / "nowhere")
    result = CliRunner().invoke(cli, ["checkpoint", "export", str(stranger.path), "-o", str(output)])
    assert "already exists" in str(result.exception)
    (output / "image").unlink()
    (output / "exported.json").symlink_to(precious)
    assert CliRunner().invoke(cli, ["checkpoint", "export", str(stranger.path), "-o", str(output)]).exit_code == 0
    assert precious.read_text() == "precious"
    assert not (output / "exported.json").is_symlink()


def test_a_file_that_grows_while_it_is_hashed_is_refused_at_the_first_extra_byte(tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    with open(tmp_path / "image" / "x", "wb") as file:
        file.truncate(1 << 40)
    copied: list[int] = []
    with pytest.raises(CheckpointError, match="changed or truncated"):
        verify(ShardFile("image/x", 10, "0" * 64), tmp_path, lambda piece: copied.append(len(piece)))
    assert sum(copied) == 11
