"""Fetching from a Hub: with both versions of the Hub's client that the environments have."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from environment_fetch import ENVIRONMENTS, NAME, Fetch
from fake_hub.hub import COMMIT, FakeHub, Repository
from mora_launch.environments.venvs import ROOT

WEIGHTS = os.urandom(5 << 20)
FILES = {
    "config.json": b'{"a": 1}',
    "tokenizer.json": b"[]",
    "model.safetensors": WEIGHTS,
    "diffusion_pytorch_model.safetensors": WEIGHTS[: 3 << 20],
    "pytorch_model.bin": b"not wanted",
    "model.fp16.safetensors": b"not wanted",
}
PAGE = "https://huggingface.co/some/model"


def model(**more: object) -> Repository:
    return Repository(dict(FILES), **more)  # type: ignore[arg-type]


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub({NAME: model()}) as found:
        yield found


@pytest.fixture(params=ENVIRONMENTS)
def fetch(request: pytest.FixtureRequest, hub: FakeHub, tmp_path: Path) -> Fetch:
    return Fetch(request.param, hub, tmp_path / "hf")


def eventually_has(path: Path, content: bytes, nbytes: int) -> None:
    """Wait for the download of this content: other files of the model are downloaded beside it."""
    partial = path / f"{hashlib.sha256(content).hexdigest()}.incomplete"
    deadline_s = time.monotonic() + 60
    while not partial.exists() or partial.stat().st_size < nbytes:
        assert time.monotonic() < deadline_s, list(path.iterdir())
        time.sleep(0.01)


def test_a_fetch_puts_what_agents_load_into_the_cache_and_nothing_else(fetch: Fetch) -> None:
    planned = fetch.run(download=False)
    assert not fetch.home.exists()
    fetched = fetch.run()
    assert fetched == planned
    snapshot = fetch.repository / "snapshots" / COMMIT
    found = {path.name: path.read_bytes() for path in snapshot.iterdir()}
    assert found == {file["path"]: FILES[file["path"]] for file in planned["files"]}
    assert found.keys() >= {"config.json", "tokenizer.json", "model.safetensors"}
    assert b"not wanted" not in found.values()
    assert all(path.is_symlink() for path in snapshot.iterdir())
    assert (fetch.repository / "refs" / "main").read_text() == COMMIT


def test_a_second_fetch_asks_the_hub_nothing(fetch: Fetch) -> None:
    fetch.run()
    fetch.hub.asked.clear()
    again = fetch.run()
    assert (again["files"], again["conversions"], fetch.hub.asked) == ([], [], [])


def test_agents_that_load_the_same_files_download_them_once(fetch: Fetch) -> None:
    fetched = fetch.run(num_agents=3)
    assert sum(fetch.hub.num_sent.values()) == sum(file["nbytes"] for file in fetched["files"])


def test_two_processes_at_once_download_every_file_once(fetch: Fetch) -> None:
    fetch.hub.stall_after["model.safetensors"] = 2 << 20
    first = fetch.start()
    assert fetch.hub.stalled.wait(60)
    eventually_has(fetch.repository / "blobs", WEIGHTS, 1 << 20)
    second = fetch.start()
    fetch.hub.stall_after.clear()
    fetch.hub.release()
    assert [process.wait(60) for process in (first, second)] == [0, 0], [first.communicate(), second.communicate()]
    for process in (first, second):
        process.communicate()
    assert fetch.hub.num_sent[f"{NAME}/model.safetensors"] == len(WEIGHTS)


def test_the_token_is_not_given_to_the_host_of_large_files(fetch: Fetch) -> None:
    fetch.hub.tokens["mine"] = set()
    fetch.token = "mine"
    fetch.run()
    by_host = {asked.host.partition(":")[0]: asked.token for asked in fetch.hub.asked}
    assert by_host == {"127.0.0.1": "mine", "localhost": None}


@pytest.mark.parametrize(
    ("token", "accepted", "told"),
    [
        (None, (), f"is gated and there is no token: accept its terms at {PAGE}, then set HF_TOKEN or run `hf auth"),
        ("mine", (), f"your account has not accepted its terms or your token may not read it: open {PAGE}"),
        ("wrong", (), "refuses the token: make a new one at https://huggingface.co/settings/tokens, set HF_TOKEN"),
        ("mine", (NAME,), None),
    ],
)
def test_a_gate_is_met_before_anything_is_downloaded(
    fetch: Fetch, token: str | None, accepted: tuple[str, ...], told: str | None
) -> None:
    fetch.hub.repositories[NAME].is_gated = True
    fetch.hub.tokens["mine"] = set(accepted)
    fetch.token = token
    answer = fetch.run(download=False)
    if told is None:
        assert answer["files"]
        return
    assert_one_line(answer, fetch, told)


def test_a_name_that_does_not_exist_is_told_in_one_line(fetch: Fetch) -> None:
    del fetch.hub.repositories[NAME]
    told = f"there is no such model, or it is private: see {PAGE}; correct `agents."
    assert_one_line(fetch.run(), fetch, told)
    fetch.hub.tokens["mine"] = set()
    fetch.token = "mine"
    assert_one_line(fetch.run(), fetch, told)


def test_no_network_is_told_in_one_line(fetch: Fetch) -> None:
    answer = fetch.run(HF_ENDPOINT="http://127.0.0.1:9")
    assert_one_line(answer, fetch, "http://127.0.0.1:9 cannot be reached")


def test_a_hub_that_is_switched_off_is_told_in_one_line(fetch: Fetch) -> None:
    assert_one_line(fetch.run(HF_HUB_OFFLINE="1"), fetch, "HF_HUB_OFFLINE is set", names_page=False)


def assert_one_line(answer: dict[str, str], fetch: Fetch, told: str, *, names_page: bool = True) -> None:
    assert told in answer["error"]
    assert "\n" not in answer["error"]
    assert answer["error"].startswith(f"{NAME}: ")
    assert str(fetch.home / "hub") in answer["error"]
    if names_page:
        assert PAGE in answer["error"] or "settings/tokens" in answer["error"]
        assert "HF_TOKEN" in answer["error"]
    assert not fetch.hub.downloads()


def test_a_repository_without_the_weights_is_refused(fetch: Fetch) -> None:
    del fetch.hub.repositories[NAME].files["model.safetensors"]
    fetch.hub.repositories[NAME].files.pop("pytorch_model.bin")
    assert "some/model: expected model.safetensors there, which the agent loads" in fetch.run()["error"]
    assert not fetch.hub.downloads()


def test_a_connection_that_ends_in_the_middle_is_continued(fetch: Fetch) -> None:
    fetch.hub.cut_after["model.safetensors"] = (2 << 20) + 12345
    assert fetch.run()["files"]
    ranges = [asked.range for asked in fetch.hub.downloads() if asked.path.endswith("/-/model.safetensors")]
    assert ranges == [f"bytes=0-{len(WEIGHTS) - 1}", f"bytes={(2 << 20) + 12345}-{len(WEIGHTS) - 1}"]
    assert fetch.hub.num_sent[f"{NAME}/model.safetensors"] == len(WEIGHTS)
    assert (fetch.repository / "snapshots" / COMMIT / "model.safetensors").read_bytes() == WEIGHTS


def test_a_hub_that_is_busy_for_a_moment_does_not_end_the_download(fetch: Fetch) -> None:
    fetch.hub.busy_for["model.safetensors"] = 1
    assert fetch.run()["files"]
    assert fetch.hub.busy_for["model.safetensors"] == 0
    assert (fetch.repository / "snapshots" / COMMIT / "model.safetensors").read_bytes() == WEIGHTS


def test_a_server_without_ranges_is_asked_again_for_everything(fetch: Fetch) -> None:
    fetch.hub.knows_ranges = False
    fetch.hub.cut_after["model.safetensors"] = 1 << 20
    assert fetch.run()["files"]
    assert (fetch.repository / "snapshots" / COMMIT / "model.safetensors").read_bytes() == WEIGHTS


def test_a_killed_fetch_continues_where_it_ended(fetch: Fetch) -> None:
    fetch.hub.stall_after["model.safetensors"] = 3 << 20
    process = fetch.start()
    assert fetch.hub.stalled.wait(60)
    eventually_has(fetch.repository / "blobs", WEIGHTS, 3 << 20)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    process.communicate()
    assert not (fetch.repository / "refs").exists()  # nothing is visible before all files are whole
    with FakeHub({NAME: model()}) as other:
        later = Fetch(fetch.environment, other, fetch.home)
        planned = {file["path"]: file["num_missing_nbytes"] for file in later.run(download=False)["files"]}
        assert planned["model.safetensors"] == len(WEIGHTS) - (3 << 20)
        later.run()
        assert other.num_sent[f"{NAME}/model.safetensors"] == len(WEIGHTS) - (3 << 20)
    assert (fetch.repository / "snapshots" / COMMIT / "model.safetensors").read_bytes() == WEIGHTS


def test_the_process_ends_when_its_launcher_has_died(fetch: Fetch) -> None:
    fetch.hub.stall_after["model.safetensors"] = 1 << 20
    process = fetch.start(ends_with_input=True)
    assert fetch.hub.stalled.wait(60)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(30) == 1
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()


def test_damaged_content_is_refused_and_not_kept(fetch: Fetch) -> None:
    wrong = "0" * 64
    fetch.hub.repositories[NAME].etags["model.safetensors"] = wrong
    assert f"some/model/model.safetensors: arrived damaged: expected SHA-256 {wrong}" in fetch.run()["error"]
    assert not [path for path in (fetch.repository / "blobs").iterdir() if path.name.startswith(wrong)]
    assert not (fetch.repository / "refs").exists()


@pytest.mark.parametrize("path", ["../outside.json", "a/../../../outside.json", "/outside.json", "a\\..\\outside.json"])
def test_a_path_that_leaves_the_repository_is_refused(fetch: Fetch, path: str) -> None:
    fetch.hub.repositories[NAME].files[path] = b"{}"
    assert f"some/model: lists the file {path!r}, which is outside the repository" in fetch.run()["error"]
    assert not fetch.home.exists()


@pytest.mark.parametrize("etag", ["../../../outside", "a/b", ".", "x" * 200])
def test_an_etag_that_cannot_name_a_file_is_refused(fetch: Fetch, etag: str) -> None:
    fetch.hub.repositories[NAME].etags["model.safetensors"] = etag
    assert "expected an ETag that can name a file, and a size; got" in fetch.run()["error"]
    assert not [path for path in fetch.home.parent.rglob("*outside*")]


def test_the_hubs_client_too_refuses_a_path_that_leaves_the_cache(fetch: Fetch) -> None:
    outside = "../../../../../outside.json"
    fetch.hub.says_everything_is = b"{}"
    script = (
        "import huggingface_hub, sys\n"
        "try:\n"
        f"    huggingface_hub.hf_hub_download({NAME!r}, {outside!r})\n"
        "except ValueError as error:\n"
        "    print('refused:', error)\n"
    )
    done = subprocess.run(
        [fetch.command[0], "-c", script], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
        env=fetch.variables(),
    )  # fmt: skip
    assert done.stdout.startswith("refused: Invalid"), done.stderr
    assert not [path for path in fetch.home.parent.rglob("outside*")]


def test_the_cache_is_where_the_user_says(fetch: Fetch, tmp_path: Path) -> None:
    answer = fetch.run(HF_HUB_CACHE=str(tmp_path / "elsewhere"))
    assert answer["cache"] == str(tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "models--some--model" / "refs" / "main").is_file()
    assert not (fetch.home / "hub").exists()


def test_the_cache_keeps_the_commit_that_it_has(fetch: Fetch) -> None:
    fetch.run()
    old = fetch.repository / "snapshots" / COMMIT
    (old / "config.json").unlink()
    fetch.hub.asked.clear()
    fetch.run()
    assert f"/api/models/{NAME}/revision/{COMMIT}" in {asked.path for asked in fetch.hub.asked}
    assert (old / "config.json").read_bytes() == FILES["config.json"]
    assert fetch.hub.downloads() == []  # its content was still in the cache


def test_a_commit_that_the_hub_has_no_more_is_replaced_as_a_whole(fetch: Fetch) -> None:
    files = {file["path"] for file in fetch.run()["files"]}
    (fetch.repository / "snapshots" / COMMIT / "config.json").unlink()
    fetch.hub.repositories[NAME].commit = "f" * 40
    fetch.run()
    assert (fetch.repository / "refs" / "main").read_text() == "f" * 40
    assert {path.name for path in (fetch.repository / "snapshots" / ("f" * 40)).iterdir()} == files
