"""Files of strangers: the JSON that `mora generate --repeat` reads. It can name no endpoint and no key."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mora_launch.generation.command
import pytest
from click.testing import CliRunner, Result
from mora_launch.chat.prompt_agent import prompt_agent
from mora_launch.cli import cli
from mora_launch.config.train_config import load_config
from mora_launch.generation.repeated_run import RepeatedRun
from mora_launch.review.repeated_stages import RepeatedStages
from mora_runtime.errors import SettingsError

from tests.unit.launch.chat_endpoint import ChatEndpoint, chat_endpoint

TINY = Path(__file__).resolve().parents[3] / "configs" / "tiny.yaml"
WRITTEN = {"stage": "prompt", "kind": "text", "prompt": "A red circle.", "attempt": 0}


def strange_json(prompts: dict[str, Any] | None = None) -> dict[str, Any]:
    config = load_config(TINY, []).model_dump(mode="json")
    if prompts is not None:
        config["serving"]["prompts"] |= prompts
    return {
        "mora": {"task": "text_to_video", "prompt": "a red circle", "seed": 3, "videos": []},
        "inputs": {},
        "models": {"text_to_image": "tiny"},
        "stages": [],
        "config": config,
    }


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatEndpoint]:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtn-MY-SECRET")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-MY-SECRET")
    with chat_endpoint() as server:
        server.answers = ["their description"]
        yield server


@pytest.fixture
def enhanced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collects the prompts that the prompt agent of each run makes; no models are loaded."""
    made: list[str] = []

    def generate(options: Any, config: Any, *arguments: Any, before: Any = (), **others: Any) -> None:
        agent = prompt_agent(config.serving.prompts)
        stages = RepeatedStages(None, None, before)  # type: ignore[arg-type]
        made.append(stages.text("prompt", lambda: asyncio.run(agent.enhance(options.prompt))))

    monkeypatch.setattr(mora_launch.generation.command, "generate", generate)
    return made


def repeat(folder: Path, content: Any, *words: str) -> Result:
    path = folder / "strange.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return CliRunner().invoke(cli, ["generate", "--repeat", str(path), "-o", str(folder / "again.mp4"), *words])


@pytest.mark.parametrize("variable", ["AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "LAB_API_KEY", 7, None])
@pytest.mark.parametrize("kind", ["openai", "OpenAI", "other"])
def test_an_endpoint_that_the_file_names_is_never_asked(
    tmp_path: Path, theirs: ChatEndpoint, enhanced: list[str], variable: Any, kind: str
) -> None:
    result = repeat(tmp_path, strange_json({"kind": kind, "base_url": theirs.base_url, "api_key_variable": variable}))
    assert result.exception is None, result.exception
    assert theirs.headers == []
    assert f"gpt-4o at {theirs.base_url}; the templates of your --config" in result.output
    assert "the result may differ" in result.output
    assert enhanced[0].startswith("A red circle. The scene is"), "the user's own prompt agent, of templates"


def test_endpoints_of_judges_and_writers_in_the_file_are_left_out(
    tmp_path: Path, theirs: ChatEndpoint, enhanced: list[str]
) -> None:
    content = strange_json()
    endpoint = {"base_url": theirs.base_url, "model": "m", "api_key_variable": "AWS_SECRET_ACCESS_KEY"}
    content["config"]["synthesis"] = {
        "prompts": {"source": "endpoint", "endpoint": endpoint},
        "judges": [{"kind": "endpoint", "endpoint": endpoint}] * 2,
    }
    path = tmp_path / "strange.json"
    path.write_text(json.dumps(content))
    run = RepeatedRun.read(path, lambda: load_config(TINY, []))
    assert "AWS" not in run.config.model_dump_json()
    assert theirs.base_url not in run.config.model_dump_json()


def environment_of(folder: Path, name: str) -> dict[str, str]:
    """An environment of a configuration whose interpreter leaves a mark when it runs."""
    program = folder / f"{name}-python"
    program.write_text(f"#!/bin/sh\ntouch {folder}/{name}-ran\n")
    program.chmod(0o755)
    return {"python": str(program), "package": "any"}


def test_the_file_cannot_choose_what_runs_on_this_machine(tmp_path: Path) -> None:
    content = strange_json()
    content["config"]["environments"] = {"theirs": environment_of(tmp_path, "theirs")}
    content["config"]["agents"]["image"]["environment"] = "theirs"
    result = repeat(tmp_path, content)
    assert isinstance(result.exception, SettingsError)
    assert "agents.image.environment: unknown environment `theirs`" in str(result.exception)
    assert not (tmp_path / "theirs-ran").exists()


def test_an_environment_of_the_file_is_the_one_of_that_name_in_the_users_configuration(tmp_path: Path) -> None:
    content = strange_json()
    content["config"]["environments"] = {"lab": environment_of(tmp_path, "theirs")}
    content["config"]["agents"]["image"]["environment"] = "lab"
    path = tmp_path / "strange.json"
    path.write_text(json.dumps(content))
    ours = environment_of(tmp_path, "ours")
    run = RepeatedRun.read(path, lambda: load_config(TINY, [f"environments.lab={json.dumps(ours)}"]))
    assert run.config.environments["lab"].python == ours["python"]
    assert str(tmp_path / "theirs-python") not in run.config.model_dump_json()


def test_a_prompt_in_the_file_is_used_without_asking_an_endpoint(
    tmp_path: Path, theirs: ChatEndpoint, enhanced: list[str]
) -> None:
    content = strange_json({"kind": "openai", "base_url": theirs.base_url}) | {"stages": [WRITTEN]}
    result = repeat(tmp_path, content)
    assert result.exception is None, result.exception
    assert enhanced == ["A red circle."]
    assert "no language model is asked" in result.output
    assert theirs.headers == []


def test_the_users_own_endpoint_is_asked_if_the_file_has_no_prompt(
    tmp_path: Path, theirs: ChatEndpoint, enhanced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_API_KEY", "lab-key")
    with chat_endpoint() as own:
        own.answers = ["My own description."]
        settings = f"{{kind: openai, base_url: '{own.base_url}', api_key_variable: LAB_API_KEY, model: mine}}"
        config = tmp_path / "own.yaml"
        config.write_text(TINY.read_text() + f"serving:\n  prompts: {settings}\n")
        content = strange_json({"kind": "openai", "base_url": theirs.base_url})
        result = repeat(tmp_path, content, "--config", str(config))
        assert result.exception is None, result.exception
        assert enhanced == ["My own description."]
        assert own.keys == ["Bearer lab-key"]
        assert f"mine at {own.base_url} of your --config is used instead" in result.output
    assert theirs.headers == []


def test_the_request_of_the_file_is_shown_before_models_load(tmp_path: Path, enhanced: list[str]) -> None:
    content = strange_json()
    content["mora"] |= {"prompt": "a cat\x1b]0;title\x07\r\n\x9b2Jhidden", "image": "/home/me/private.png"}
    content["config"]["agents"]["image"]["options"]["model"] = "evil/model"
    content["config"]["serving"]["checkpoint"] = "/runs/theirs:4"
    result = repeat(tmp_path, content)
    assert result.exception is None, result.exception
    for words in ("text_to_video: a cat]0;title 2Jhidden", "reads /home/me/private.png", "model evil/model"):
        assert words in result.output
    assert "checkpoint /runs/theirs:4" in result.output
    assert not set(result.output) & {"\x1b", "\x07", "\r", "\x9b"}


def broken(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    content = strange_json()
    change(content)
    return content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[" * 200_000, "nesting"),
        (b'{"mora": ' * 100_000, "nesting"),
        (b" " * (17 << 20), "bytes"),
        (b"\xff", "not UTF-8"),
        (b"[1]", "expected a JSON object"),
        (b'{"mora": 1, "mora": 2}', "occurs twice"),
        (b'{"mora": NaN}', "finite"),
        (broken(lambda c: c.update(extra=1)), "extra: unknown key"),
        (broken(lambda c: c.pop("mora")), "mora: field required"),
        (broken(lambda c: c.update(config=[])), "config"),
        (broken(lambda c: c["config"].update(replicas="x")), "replicas"),
        (broken(lambda c: c["config"].update(evil=1)), "evil: unknown key"),
        (broken(lambda c: c["config"].update(serving=[1])), "serving"),
        (broken(lambda c: c["mora"].update(seed="3")), "mora.seed"),
        (broken(lambda c: c["mora"].update(seed=True)), "mora.seed"),
        (broken(lambda c: c["mora"].update(seed=3.5)), "mora.seed"),
        (broken(lambda c: c["mora"].update(prompt={"path": "/etc/passwd"})), "mora.prompt"),
        (broken(lambda c: c["mora"].update(task="rm")), "mora.task"),
        (broken(lambda c: c["mora"].update(videos="a.mp4")), "mora.videos"),
        (broken(lambda c: c["mora"].update(videos=[1])), "mora.videos"),
        (broken(lambda c: c["mora"].update(enhance="no")), "mora.enhance"),
        (broken(lambda c: c["mora"].update(output="/etc/passwd")), "mora.output: unknown key"),
        (broken(lambda c: c.update(inputs={"image": 1})), "inputs"),
        (broken(lambda c: c.update(inputs={"image": "x"})), "inputs"),
        (broken(lambda c: c.update(stages=[WRITTEN | {"file": "../../x.npy"}])), "stages.0.file"),
        (broken(lambda c: c.update(stages=[WRITTEN | {"file": "x.npy"}])), "has no field `file`"),
        (broken(lambda c: c.update(stages=[WRITTEN | {"attempt": "x"}])), "attempt"),
        (broken(lambda c: c.update(stages=[WRITTEN | {"prompt": "x" * 30_000}])), "texts of"),
        (broken(lambda c: c.update(stages=[WRITTEN | {"steps": [{"action": "again"}] * 300}])), "200 steps"),
        (broken(lambda c: c.update(stages=[WRITTEN] * 1001)), "stages"),
        (
            broken(lambda c: c["config"]["agents"]["image"].update(tiny_models="/home/me/Documents")),
            "expected a folder in models/",
        ),
        (broken(lambda c: c["config"]["agents"]["image"].update(tiny_models="models/../..")), "in models/"),
    ],
)
def test_an_invalid_file_is_refused_in_one_line(tmp_path: Path, enhanced: list[str], content: Any, words: str) -> None:
    result = repeat(tmp_path, content)
    assert isinstance(result.exception, SettingsError), result.exception
    assert words in str(result.exception)
    assert str(result.exception).isprintable()
    assert enhanced == []


@pytest.mark.timeout(20)
def test_a_pipe_and_a_device_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        result = CliRunner().invoke(cli, ["generate", "--repeat", str(path), "-o", str(tmp_path / "again.mp4")])
        assert isinstance(result.exception, SettingsError)
        assert "expected a regular file" in str(result.exception)


def test_adapters_are_shown_and_no_folder_of_them_is_listed(tmp_path: Path, enhanced: list[str]) -> None:
    content = strange_json()
    content["config"]["serving"]["adapters"] = {"folder": "/etc", "named": {"ink": "/home/other/ink"}}
    content["mora"]["lora"] = "ink:0.5"
    content["lora"] = {"name": "ink", "scale": 0.5, "sha256": {"image": "0" * 64}}
    content["audio"] = "left out"
    result = repeat(tmp_path, content)
    assert result.exception is None, result.exception
    assert "adapters ink from /home/other/ink" in result.output
    run = RepeatedRun.read(tmp_path / "strange.json", lambda: load_config(TINY, []))
    assert run.config.serving.adapters.folder is None
    assert run.lora_sha256 == {"image": "0" * 64}
