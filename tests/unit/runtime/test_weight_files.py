"""Which files an agent loads, whether the Hub's cache has them, and how one file's content is downloaded."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from mora_environment.model_folder import published_count
from mora_environment.weights import shared_lock
from mora_environment.weights.blob_download import download_blob
from mora_environment.weights.file_choice import choose
from mora_environment.weights.hub import Location, is_inside
from mora_environment.weights.hub_cache import cache_folder, repository_folder
from mora_environment.weights.presence import missing_weights
from mora_environment.weights.shared_lock import lock_where_possible
from mora_environment.weights.weights_source import Conversion, HubPlace, WeightsSource
from mora_runtime.errors import EndpointFailed, SettingsError, StorageError
from safetensors.torch import save_file

COMMIT = "a" * 40
CONVERSION = Conversion(file="pytorch_model.bin", dtype="bfloat16", prefixes=("encoder.",))
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
BINS = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]


def source(**more: object) -> WeightsSource:
    return WeightsSource(option="model", name="owner/name", weights="model", **more)  # type: ignore[arg-type]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf"


@pytest.fixture
def snapshot(home: Path) -> Path:
    repository = repository_folder("owner/name")
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    folder = repository / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("names", "files", "to_convert", "lacking"),
    [
        (["model.safetensors", "model.fp16.safetensors"], ["model.safetensors"], [], []),
        (["model.safetensors", *SHARDS], ["model.safetensors"], [], []),
        (["model.safetensors.index.json", *SHARDS], ["model.safetensors.index.json", *SHARDS], [], []),
        (SHARDS, [], [], ["model.safetensors"]),
        (["pytorch_model.bin"], [], ["pytorch_model.bin"], []),
        (["pytorch_model.bin.index.json", *BINS], [], ["pytorch_model.bin.index.json", *BINS], []),
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"], [], []),
        (["a.ckpt", "pytorch_model.bin"], ["a.ckpt"], [], []),
        ([], [], [], ["model.safetensors"]),
    ],
)
def test_safetensors_come_first_then_other_files_then_those_to_convert(
    names: list[str], files: list[str], to_convert: list[str], lacking: list[str]
) -> None:
    found = choose(source(otherwise=("*.ckpt",), conversion=CONVERSION), names)
    assert (list(found.files), list(found.to_convert), list(found.lacking)) == (files, to_convert, lacking)


def test_named_files_must_exist_and_extras_may() -> None:
    found = choose(source(files=("config.json",), extras=("*.txt",)), ["a.txt", "b.md", "model.safetensors"])
    assert (found.files, found.lacking) == (("a.txt", "model.safetensors"), ("config.json",))


def test_converted_weights_need_no_weights() -> None:
    assert choose(source(conversion=CONVERSION), ["pytorch_model.bin"], is_converted=True).all_files == ()


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("owner/name", ("owner/name", "")),
        ("owner/name/a/b", ("owner/name", "a/b")),
        ("name", None), ("/owner/name", None), ("owner/../name", None), ("owner/name/..", None), ("a b/c", None),
    ],
)  # fmt: skip
def test_what_a_hub_id_is(name: str, place: tuple[str, str] | None) -> None:
    found = HubPlace.of(name)
    assert (None if found is None else (found.repository, found.folder)) == place


def test_a_folder_of_this_machine_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    found = WeightsSource(option="model", name=str(tmp_path), files=("config.json",))
    assert missing_weights([found], "agents.a.options") == []


def test_a_partial_snapshot_is_missing(snapshot: Path) -> None:
    wanted = [source(files=("config.json",)), source(subfolder="vae", files=("config.json",))]
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict(zip("ab", SHARDS, strict=True))})
    )
    (snapshot / SHARDS[0]).write_text("")
    (found,) = missing_weights(wanted, "agents.a.options")
    assert found.files == (SHARDS[1], "vae/config.json", "vae/model.safetensors")
    assert str(found) == f"agents.a.options.model: owner/name ({SHARDS[1]} and 2 more) is not on this machine"
    (snapshot / SHARDS[1]).write_text("")
    (snapshot / "vae").mkdir()
    for name in ("config.json", "model.safetensors"):
        (snapshot / "vae" / name).write_text("")
    assert missing_weights(wanted, "agents.a.options") == []


def test_a_link_to_content_that_is_gone_is_missing(snapshot: Path) -> None:
    (snapshot / "model.safetensors").symlink_to("../../blobs/gone")
    assert missing_weights([source()], "agents.a.options")[0].files == ("model.safetensors",)


@pytest.mark.parametrize("text", ["../../elsewhere", "", "A" * 40, "a" * 39])
def test_a_reference_that_names_no_commit_is_not_followed(snapshot: Path, text: str) -> None:
    (snapshot / "model.safetensors").write_text("")
    (snapshot.parent.parent / "refs" / "main").write_text(text)
    assert len(missing_weights([source()], "agents.a.options")) == 1


def test_the_cache_is_where_the_hubs_client_has_it(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == home / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "huggingface" / "hub"
    monkeypatch.setenv("HF_HOME", "~/hf")
    assert cache_folder() == Path.home() / "hf" / "hub"


def test_parameters_are_counted_in_the_cache_and_else_as_published(snapshot: Path) -> None:
    import torch

    published = {"owner/name": {"vae": 7}}
    assert published_count("owner/name", "vae", published) == 7
    (snapshot / "vae").mkdir()
    for name in ("model.safetensors", "model.fp16.safetensors"):
        save_file({"x": torch.zeros(3, 4)}, snapshot / "vae" / name)
    assert published_count("owner/name", "vae", published) == 12
    assert published_count("owner/name/vae", "vae", {}) == 12
    with pytest.raises(SettingsError, match="`owner/other`: no such folder or known Hub id"):
        published_count("owner/other", "vae", published)


@pytest.mark.parametrize("path", ["a/../b", "/a", "a//b", "./a", "a\\b", "a\nb", "", "..", "x" * 2000])
def test_paths_that_leave_a_repository_are_known(path: str) -> None:
    assert not is_inside(path)
    assert is_inside("a/b.c/d-e_f")


CONTENT = bytes(range(256)) * 40


class Server:
    """Answers ranges of CONTENT as `script` says: each entry is the number of bytes, or an exception."""

    def __init__(self, script: list[int | Exception]) -> None:
        self.script = script
        self.ranges: list[str] = []

    def open(self, request: object, timeout: float) -> Answer:
        wanted = request.get_header("Range")  # type: ignore[attr-defined]
        self.ranges.append(wanted)
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        start = int(wanted.removeprefix("bytes=").partition("-")[0])
        return Answer(CONTENT[start : start + step])


class Answer:
    status = 206

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, number: int) -> bytes:
        piece, self._content = self._content[:number], self._content[number:]
        return piece

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *error: object) -> None: ...


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> object:
    def scripted(*script: int | Exception) -> Server:
        server = Server(list(script))
        monkeypatch.setattr("mora_environment.weights.blob_download._opener", lambda: server)
        return server

    pauses: list[float] = []
    monkeypatch.setattr("mora_environment.weights.blob_download.time.sleep", pauses.append)
    scripted.pauses = pauses  # type: ignore[attr-defined]
    return scripted


def location(blob: str = hashlib.sha256(CONTENT).hexdigest(), nbytes: int = len(CONTENT)) -> Location:
    return Location("https://somewhere/file", {}, nbytes, blob)


def test_every_broken_range_continues_at_its_last_byte(serve: SimpleNamespace, tmp_path: Path) -> None:
    server, told = serve(1000, ConnectionResetError(), 500, len(CONTENT)), list[int]()
    path = download_blob(location, tmp_path, "owner/name/file", told.append)
    assert path.read_bytes() == CONTENT
    assert sum(told) == len(CONTENT)
    assert [each.partition("-")[0] for each in server.ranges] == ["bytes=0", "bytes=1000", "bytes=1000", "bytes=1500"]
    assert download_blob(location, tmp_path, "owner/name/file", told.append) == path
    assert len(server.ranges) == 4


def test_a_server_that_brings_nothing_is_given_up_and_what_came_is_kept(serve: SimpleNamespace, tmp_path: Path) -> None:
    serve(1000, *(TimeoutError() for _ in range(5)))
    with pytest.raises(EndpointFailed, match=r"5 attempts in a row brought no byte .* 1000 of 10240 bytes are here"):
        download_blob(location, tmp_path, "owner/name/file", lambda number: None)
    assert [path.stat().st_size for path in tmp_path.glob("*.incomplete")] == [1000]
    assert serve.pauses == sorted(serve.pauses)


def test_content_that_changes_during_the_download_is_refused(serve: SimpleNamespace, tmp_path: Path) -> None:
    serve(1000)
    locations = [location(), location("b" * 64)]
    with pytest.raises(EndpointFailed, match="owner/name/file: has changed on the Hub during the download"):
        download_blob(lambda: locations.pop(0), tmp_path, "owner/name/file", lambda number: None)


def test_a_disk_that_refuses_a_write_is_told_at_once(
    serve: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(*[len(CONTENT)] * 9)

    def full(handle: object, chunk: bytes) -> None:
        raise module._Unwritable(errno.ENOSPC, "No space left on device")

    from mora_environment.weights import blob_download as module

    monkeypatch.setattr(module, "_write", full)
    with pytest.raises(StorageError, match=r"owner/name/file: cannot be written to .*: No space left on device"):
        download_blob(location, tmp_path, "owner/name/file", lambda number: None)
    assert len(server.ranges) == 1


def test_a_file_system_without_locks_is_used_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*arguments: object, **named: object) -> None:
        raise OSError(errors.pop(0), "")

    errors = [errno.ENOLCK, errno.EIO]
    monkeypatch.setattr(shared_lock, "lock_file", without)
    lock_where_possible(0, 1.0, shown="x")
    with pytest.raises(OSError, match="5"):
        lock_where_possible(0, 1.0, shown="x")
