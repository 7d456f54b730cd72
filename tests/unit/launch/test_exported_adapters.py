"""`mora checkpoint export --format`: which agents are exported, and that all are or none.

The environments' part, the formats themselves, is tested in each environment.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from adapter_run import ADAPTERS, TINY, WEIGHTS, adapters_of, whole, write_checkpoint
from click.testing import CliRunner, Result
from mora_launch.checkpoints import export
from mora_launch.cli import cli
from mora_runtime.errors import CheckpointError


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A run whose image agent trained adapters and whose video agent trained whole weights."""
    return write_checkpoint(tmp_path / "run", adapters_of("image") | whole("video"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The conversions that environments were asked for; each writes one file."""
    found: list[dict[str, Any]] = []

    def answer(name: str, agent: Any, environment: Any, *, adapters: Path, target: Path, adapter_format: str) -> None:
        names = sorted(path.name for path in adapters.iterdir())
        found.append({"agent": name, "environment": environment.name, "format": adapter_format, "files": names})
        assert not list(target.iterdir())
        (target / "converted").write_text(name)

    monkeypatch.setattr(export, "ask_to_export", answer)
    monkeypatch.setattr(export, "ensure_environments", lambda environments: None)
    return found


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["checkpoint", "export", *map(str, arguments)])


def test_a_format_of_adapters_exports_the_agents_that_have_some(mixed: Path, tmp_path: Path, asked: list[Any]) -> None:
    out = tmp_path / "out"
    done = call(mixed, "-o", out, "--format", "diffusers-lora")
    assert done.exception is None, done.exception
    assert done.output == f"{out / 'image'}  load it with: pipeline.load_lora_weights('{out / 'image'}')\n"
    assert asked == [
        {"agent": "image", "environment": "sd3", "format": "diffusers-lora", "files": [ADAPTERS, "config.json"]}
    ]
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*")) == [
        "exported.json", "image", "image/converted",
    ]  # fmt: skip
    assert json.loads((out / "exported.json").read_text())["format"] == "diffusers-lora"


def test_merged_exports_whole_weights_of_every_agent(mixed: Path, tmp_path: Path, asked: list[Any]) -> None:
    assert call(mixed, "-o", tmp_path / "out", "--format", "merged").exception is None
    assert [each["agent"] for each in asked] == ["image"]
    assert (tmp_path / "out" / "image" / "converted").read_text() == "image"
    assert (tmp_path / "out" / "video" / WEIGHTS).read_bytes() == b"whole"


def test_native_copies_adapters_and_says_what_they_are(mixed: Path, tmp_path: Path, asked: list[Any]) -> None:
    done = call(mixed, "-o", tmp_path / "out", "--agent", "image")
    assert asked == []
    assert sorted(path.name for path in (tmp_path / "out" / "image").iterdir()) == [ADAPTERS, "config.json"]
    assert not (tmp_path / "out" / "video").exists()
    assert done.output.splitlines()[1].startswith("LoRA adapters alone; --format diffusers-lora, peft or merged")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--agent", "video", "--format", "peft"), "video: expected LoRA adapters for the format `peft`, got whole"),
        (("--agent", "imag"), "has no `weights` of an agent `imag`; did you mean `image`? (has image, video)"),
        (("--average", "--agent", "video"), "has no `ema` of an agent `video`"),
    ],
)
def test_an_agent_that_cannot_be_exported_is_named(
    mixed: Path, tmp_path: Path, asked: list[Any], options: tuple[str, ...], said: str
) -> None:
    error = call(mixed, "-o", tmp_path / "out", *options).exception
    assert isinstance(error, CheckpointError)
    assert said in str(error)
    assert not (tmp_path / "out").exists()


def test_a_run_without_adapters_is_refused_for_formats_of_adapters(tmp_path: Path, asked: list[Any]) -> None:
    run = write_checkpoint(tmp_path / "run", whole("image") | whole("video"))
    error = call(run, "-o", tmp_path / "out", "--format", "peft").exception
    assert "image, video: expected LoRA adapters for the format `peft`, got whole weights" in str(error)
    assert "--format native" in str(error)


def test_a_refused_conversion_exports_nothing(
    mixed: Path, tmp_path: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise CheckpointError("agents.image: kind `sd3` has no such format")

    monkeypatch.setattr(export, "ask_to_export", refuse)
    error = call(mixed, "-o", tmp_path / "out", "--format", "merged").exception
    assert str(error) == "agents.image: kind `sd3` has no such format; nothing was exported"
    assert not (tmp_path / "out").exists()


def test_a_run_does_not_choose_the_environment_that_runs(mixed: Path, tmp_path: Path, asked: list[Any]) -> None:
    config = json.loads((mixed / "config.json").read_text())
    config["environments"] = {"theirs": {"python": "/usr/bin/env", "package": "x"}}
    config["agents"]["image"]["environment"] = "theirs"
    (mixed / "config.json").write_text(json.dumps(config))
    error = call(mixed, "-o", tmp_path / "out", "--format", "peft").exception
    assert "agents.image: its environment `theirs` is not one of this checkout" in str(error)
    assert asked == []
    assert call(mixed, "-o", tmp_path / "out", "--format", "peft", "--config", TINY).exception is None
    assert [each["environment"] for each in asked] == ["sd3"]


def test_an_agent_that_the_configuration_lacks_is_named(tmp_path: Path, asked: list[Any]) -> None:
    run = write_checkpoint(tmp_path / "run", adapters_of("refine"))
    error = call(run, "-o", tmp_path / "out", "--format", "peft").exception
    assert "`refine` of the checkpoint: expected it in the configuration, which has image, video" in str(error)
