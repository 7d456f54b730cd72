"""Which environments there are, by manifest or by configuration, and what is refused before anything loads."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from mora_launch.config.environment_source import EnvironmentSource
from mora_launch.config.train_config import TrainConfig, load_config
from mora_launch.environments import catalog
from mora_launch.environments.build import ensure_environments
from mora_launch.environments.catalog import checkout_environments, environment_at, environments_of
from mora_launch.environments.environment import Environment
from mora_launch.environments.interpreter import ask_interpreter
from mora_launch.environments.venvs import ROOT, RUNTIME
from mora_runtime.errors import EnvironmentFailed, SettingsError

TINY = ROOT / "configs" / "tiny.yaml"
MANIFEST = 'name = "mine"\npackage = "my_env"\npython = "3.11"\n'


def write_environment(folder: Path, manifest: str = MANIFEST) -> Path:
    folder.mkdir(parents=True)
    for name in ("requirements.lock", "pyproject.toml"):
        (folder / name).write_text("")
    (folder / "mora-env.toml").write_text(manifest)
    return folder


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout without environments."""
    monkeypatch.setattr(catalog, "ROOT", tmp_path / "checkout")
    monkeypatch.setattr("mora_launch.environments.environment.ROOT", tmp_path / "checkout")
    (tmp_path / "checkout").mkdir()
    return tmp_path / "checkout"


def config_with(tmp_path: Path, environments: dict[str, Any], *changes: str) -> TrainConfig:
    """The tiny configuration, in another folder, with environments of its own."""
    path = tmp_path / "config.yaml"
    path.write_text(TINY.read_text() + f"\nenvironments: {json.dumps(environments)}\n")
    return load_config(path, changes)


def refusal(tmp_path: Path, environments: dict[str, Any], *changes: str) -> str:
    with pytest.raises(SettingsError) as refused:
        config_with(tmp_path, environments, *changes)
    return str(refused.value)


def test_a_folder_of_the_checkout_with_a_manifest_is_an_environment(checkout: Path) -> None:
    folder = write_environment(checkout / "env_mine")
    (checkout / "env_old").mkdir()
    (found,) = checkout_environments().values()
    assert (found.name, found.package) == ("mine", "my_env")
    assert found.venv is not None
    assert (found.venv.name, found.venv.python_version) == ("mine", "3.11")
    assert found.venv.distributions == (RUNTIME, folder)


def test_a_path_of_a_configuration_is_relative_to_its_file(tmp_path: Path) -> None:
    write_environment(tmp_path / "my_environment")
    config = config_with(tmp_path, {"other": {"path": "my_environment"}}, "agents.image.environment=other")
    found = environments_of(config)["other"]
    assert found.venv is not None
    assert found.venv.lock_file == tmp_path / "my_environment" / "requirements.lock"
    assert found.name == "other", "the configuration's name"


def test_a_stored_configuration_has_the_same_environments(tmp_path: Path) -> None:
    write_environment(tmp_path / "my_environment")
    config = config_with(tmp_path, {"mine": {"path": "my_environment"}}, "agents.image.environment=mine")
    again = TrainConfig.model_validate(json.loads(json.dumps(config.model_dump(mode="json"))))
    assert environments_of(again)["mine"] == environments_of(config)["mine"]


def test_environments_outside_of_the_checkout_never_share_a_name_on_disk(tmp_path: Path) -> None:
    folders = [write_environment(tmp_path / name / "env") for name in ("a", "b")]
    names = {Environment.of_folder(folder).python for folder in folders}
    assert len(names) == 2
    assert not names & {each.python for each in checkout_environments().values()}


def test_an_interpreter_that_exists_is_an_environment_that_nothing_is_built_for(tmp_path: Path) -> None:
    source = {"python": sys.executable, "package": "json.tool"}
    config = config_with(tmp_path, {"mine": source}, "agents.image.environment=mine")
    found = environments_of(config)["mine"]
    ensure_environments([found])
    assert found.python == Path(sys.executable), "the link in the virtual environment, not what it points to"
    assert (found.package, found.venv) == ("json.tool", None)


def test_another_installed_distribution_changes_the_hash_of_an_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fresh() -> str:
        return Environment("mine", "json.tool", Path(sys.executable), "here", None).lock_hash

    before = fresh()
    assert fresh() == before
    (tmp_path / "new-1.0.dist-info").mkdir()
    (tmp_path / "new-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: new\nVersion: 1.0\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert fresh() != before


def test_an_interpreter_tells_its_version_prefix_and_torch() -> None:
    told = ask_interpreter(Path(sys.executable))
    assert told.version.startswith("3.11.")
    assert told.prefix == sys.prefix
    assert told.distributions["torch"].startswith("2.")


@pytest.mark.parametrize("content", ["#!/bin/sh\nexit 3\n", "#!/bin/sh\necho []\n", "#!/bin/sh\necho text\n"])
def test_a_program_that_is_no_python_is_refused(tmp_path: Path, content: str) -> None:
    program = tmp_path / "python"
    program.write_text(content)
    program.chmod(0o755)
    with pytest.raises(EnvironmentFailed, match=r"expected a Python interpreter of version 3\.10 or later"):
        ask_interpreter(program)


def test_an_unknown_environment_of_an_agent_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(SettingsError) as refused:
        load_config(TINY, ["agents.video.environment=opensorra"])
    assert str(refused.value) == (
        "agents.video.environment: unknown environment `opensorra`; did you mean `opensora`? "
        "(known: opensora, sd3, svd, vbench)"
    )


def test_an_unknown_environment_of_a_served_agent_is_refused() -> None:
    agent = "{environment: opensorra, kind: opensora, capabilities: [connect_videos]}"
    with pytest.raises(SettingsError, match=r"^serving\.agents\.other\.environment: unknown environment `opensorra`"):
        load_config(TINY, [f"serving.agents.other={agent}"])


def test_a_folder_without_manifest_is_refused_with_the_nearest_folder_that_has_one(tmp_path: Path) -> None:
    write_environment(tmp_path / "my_environment")
    (tmp_path / "my_environments").mkdir()
    said = refusal(tmp_path, {"mine": {"path": "my_environments"}})
    assert said == (
        f"environments.mine.path: {tmp_path}/my_environments has no mora-env.toml; expected the folder of an "
        f"environment; did you mean `{tmp_path}/my_environment`?"
    )


def test_a_folder_that_does_not_exist_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    write_environment(tmp_path / "my_environment")
    said = refusal(tmp_path, {"mine": {"path": "my_enviroment"}})
    assert "my_enviroment is not a folder; expected the folder of an environment; did you mean `" in said
    assert said.endswith("/my_environment`?")


def test_a_folder_of_the_checkout_without_manifest_is_named(checkout: Path) -> None:
    (checkout / "env_mine").mkdir()
    with pytest.raises(SettingsError, match=r"unknown environment `mine`; env_mine has no mora-env\.toml"):
        environment_at("mine")


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (MANIFEST + 'lok = "a.lock"\n', "lok: unknown key; did you mean `lock`?"),
        (MANIFEST.replace('name = "mine"\n', ""), "name: field required"),
        (MANIFEST.replace("3.11", "3.9"), "python: string should match pattern"),
        (MANIFEST.replace("my_env", "my-env"), "package: string should match pattern"),
        (MANIFEST + 'distributions = []\n', "distributions: list should have at least 1 item"),
        (MANIFEST + "= 3\n", "is not TOML"),
        (MANIFEST + 'lock = "requirement.lock"\n', "requirement.lock; did you mean `requirements.lock`?"),
        (MANIFEST + 'distributions = ["sub"]\n', "sub/pyproject.toml, it is not there"),
        (MANIFEST + f'lock = "{"a" * 300}"\n', "lock: no file"),
        (MANIFEST + f'distributions = ["{"a" * 300}"]\n', "pyproject.toml, it is not there"),
        (MANIFEST + ".".join("a" * 7000) + " = 1\n", "a: unknown key"),
        (MANIFEST + ".".join(["lock", *"a" * 3000]) + " = 1\n", "a dict with too many levels"),
        ("", "package: field required"),
    ],
)  # fmt: skip
def test_a_manifest_with_a_fault_is_refused_with_its_path(tmp_path: Path, manifest: str, said: str) -> None:
    folder = write_environment(tmp_path / "env", manifest)
    with pytest.raises(SettingsError) as refused:
        Environment.of_folder(folder)
    assert said in str(refused.value)
    assert str(refused.value).startswith(f"{folder / 'mora-env.toml'}: ")
    assert "\n" not in str(refused.value)


def test_a_manifest_that_is_not_text_is_refused(tmp_path: Path) -> None:
    folder = write_environment(tmp_path / "env")
    (folder / "mora-env.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"mora-env\.toml: is not TOML"):
        Environment.of_folder(folder)


def test_two_environments_of_one_name_in_the_checkout_are_refused(checkout: Path) -> None:
    for name in ("env_a", "env_b"):
        write_environment(checkout / name)
    with pytest.raises(SettingsError) as refused:
        checkout_environments()
    said = str(refused.value)
    assert said.startswith("two environments have the name `mine`: ")
    assert "env_a/mora-env.toml and" in said
    assert said.endswith("env_b/mora-env.toml; give one of them another name")


def test_a_configuration_cannot_give_a_name_of_the_checkout_to_another_environment(tmp_path: Path) -> None:
    write_environment(tmp_path / "my_environment")
    said = refusal(tmp_path, {"sd3": {"path": "my_environment"}})
    assert said.startswith("two environments have the name `sd3`: ")
    assert "\n" not in said


def test_the_launchers_own_name_is_refused(tmp_path: Path) -> None:
    write_environment(tmp_path / "my_environment")
    assert "the name `control` is the launcher's own" in refusal(tmp_path, {"control": {"path": "my_environment"}})


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"path": "a", "package": "b"}, "got path, package"),
        ({"python": "a"}, "expected {path: FOLDER} or {python: INTERPRETER, package: NAME}, got python"),
        ({}, "got nothing"),
        ({"pyton": "a", "package": "b"}, "environments.mine.pyton: unknown key; did you mean `python`?"),
        ({"python": "absent/python", "package": "b"}, "environments.mine.python: expected an interpreter"),
        ({"python": "a" * 300, "package": "b"}, "environments.mine.python: expected an interpreter"),
        ({"path": "a" * 300}, "environments.mine.path: "),
        ({"path": "~no-such-user/a"}, "~no-such-user/a is not a folder"),
    ],
)
def test_an_environment_of_a_configuration_with_a_fault_is_refused(
    tmp_path: Path, source: dict[str, str], said: str
) -> None:
    assert said in refusal(tmp_path, {"mine": source})


def test_an_interpreter_that_may_not_be_executed_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text("")
    os.chmod(program, 0o644)
    config = config_with(tmp_path, {"mine": {"python": "python", "package": "a"}}, "agents.image.environment=mine")
    with pytest.raises(EnvironmentFailed, match=r"^environments\.mine\.python: .*python cannot be executed"):
        ensure_environments(environments_of(config).values())


def test_content_of_another_shape_is_left_to_the_check_of_the_configuration(tmp_path: Path) -> None:
    for environments in ([], {"mine": []}, {"mine": {"path": 3}}):
        assert "environments" in refusal(tmp_path, environments)  # type: ignore[arg-type]


def test_a_name_or_a_path_names_an_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_environment(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert environment_at("sd3").package == "mora_env_sd3"
    assert environment_at("mine") == environment_at(str(tmp_path / "mine"))
    with pytest.raises(SettingsError, match=r"unknown environment `sd33`; did you mean `sd3`\?"):
        environment_at("sd33")


def test_a_source_is_one_of_both() -> None:
    assert EnvironmentSource(path="a").python is None
    assert EnvironmentSource(python="a", package="b").path is None
