"""Tiny models of a configuration, made by their environments if they are missing or were made by other code.

`python -m PACKAGE tiny KIND FOLDER` makes them. Random ones take seconds. With `tiny_task: shapes` they are pre-trained
for some minutes on clips of moving shapes, so that they generate pictures.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TextIO

from mora_data.settings import ClipShape
from mora_data.shapes_corpus import write_shapes
from mora_runtime.errors import Cancelled, EnvironmentFailed, SettingsError
from mora_runtime.files.file_lock import lock_file
from mora_runtime.files.foreign_file import read_foreign
from mora_runtime.files.foreign_json import parse_json
from rich.console import Console

from mora_launch.config.agent_config import AgentConfig
from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.catalog import environments_of
from mora_launch.environments.environment import Environment
from mora_launch.environments.tiny_makers import TinyMakers
from mora_launch.environments.venvs import ROOT, RUNTIME
from mora_launch.limits import MAX_STAMP_NBYTES, TINY_MODELS_DEADLINE_S

_STAMP = "mora-stamp.json"


def ensure_tiny_models(config: TrainConfig, console: Console) -> None:
    """Make the missing tiny models of all agents in parallel.

    Raises:
        EnvironmentFailed: a maker failed; the message has its last lines. The other makers are ended.
        SettingsError: a folder for tiny models contains something else.
    """
    _check_folders(config)
    environments = environments_of(config)
    wanted = [
        (name, agent, environments[agent.environment])
        for name, agent in config.agents.items()
        if agent.tiny_models is not None
    ]
    makers = TinyMakers()
    with ThreadPoolExecutor(max(1, len(wanted))) as pool:
        pending = [pool.submit(_ensure, *each, config.clip, makers, console) for each in wanted]
        try:
            wait(pending, return_when=FIRST_EXCEPTION)
        finally:
            makers.stop()  # those that still run take minutes: another has failed, or the command was interrupted
    errors = [error for made in pending if (error := made.exception()) is not None]
    if errors:
        raise next((error for error in errors if not isinstance(error, Cancelled)), errors[0])


def _check_folders(config: TrainConfig) -> None:
    """Refuse two agents that would replace each other's tiny models."""
    owners: dict[str, tuple[str, AgentConfig]] = {}
    for name, agent in config.agents.items():
        if agent.tiny_models is None:
            continue
        other, first = owners.setdefault(os.path.normpath(agent.tiny_models), (name, agent))
        if (first.environment, first.kind, first.tiny_task) != (agent.environment, agent.kind, agent.tiny_task):
            raise SettingsError(
                f"agents.{name}.tiny_models: {agent.tiny_models} is the folder of `{other}` too, whose kind makes "
                "other models; give each a folder of its own"
            )


def _ensure(
    name: str, agent: AgentConfig, environment: Environment, shape: ClipShape, makers: TinyMakers, console: Console
) -> None:
    assert agent.tiny_models is not None
    folder = ROOT / agent.tiny_models
    _check_ours(name, folder)
    stamp = {"hash": _maker_hash(agent, environment, shape)}
    if _read_stamp(folder) == stamp:
        return
    with _lock(name, folder) as lock:
        # another mora may be making the same models; then its result is used
        waiting = f"waiting for another mora that makes tiny models of the {name} agent in {agent.tiny_models} ..."
        lock_file(
            lock.fileno(), TINY_MODELS_DEADLINE_S, shown=lock.name,
            on_wait=lambda: console.print(waiting, markup=False), check=makers.check,
        )  # fmt: skip
        if _read_stamp(folder) == stamp:
            return
        console.print(f"making tiny models of the {name} agent in {agent.tiny_models} ...")
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as parent:
            temporary = Path(parent) / folder.name
            _make(agent, environment, shape, temporary, makers, console)
            (temporary / _STAMP).write_text(json.dumps(stamp), encoding="utf-8")
            _share(temporary)
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)


def _lock(name: str, folder: Path) -> TextIO:
    """Open the file that is locked while the models in `folder` are made."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return open(folder.with_name(f".{folder.name}.lock"), "w", encoding="utf-8")
    except OSError as error:
        raise EnvironmentFailed(
            f"agents.{name}.tiny_models: the models in {folder} must be made, but its folder cannot be written "
            f"({error.strerror}); have a user that may write there start Mora once, or name another folder"
        ) from None


def _share(folder: Path) -> None:
    """Let all users read the models that may enter their folder: safetensors makes files for their owner alone."""
    mode = stat.S_IMODE(folder.stat().st_mode) & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def _check_ours(name: str, folder: Path) -> None:
    """Refuse a folder that contains something other than tiny models, because it would be replaced."""
    is_ours = os.path.isfile(folder / _STAMP) and not os.path.islink(folder / _STAMP)
    if os.path.islink(folder) or (os.path.lexists(folder) and not is_ours and not _is_empty(folder)):
        raise SettingsError(
            f"agents.{name}.tiny_models: {folder} exists and contains no tiny models; expected a folder that can be "
            "created or replaced; choose another"
        )


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _read_stamp(folder: Path) -> object:
    try:
        return parse_json(read_foreign(folder / _STAMP, MAX_STAMP_NBYTES, follow_links=False))
    except (OSError, ValueError):
        return None


def _make(
    agent: AgentConfig, environment: Environment, shape: ClipShape, folder: Path, makers: TinyMakers, console: Console
) -> None:
    words = ["tiny", agent.kind, str(folder)]
    if agent.tiny_task is None:
        makers.run(environment, words, None)
        return
    with tempfile.TemporaryDirectory(prefix="mora-shapes-") as data:
        write_shapes(Path(data), shape)
        makers.run(environment, [*words, "--task", agent.tiny_task, f"--{agent.tiny_task}", data], console)


def _maker_hash(agent: AgentConfig, environment: Environment, shape: ClipShape) -> str:
    """Hash everything that the models depend on: code, packages, and for pre-trained ones the clips."""
    digest = hashlib.sha256(f"{environment.packages_hash} {agent.kind}".encode())
    package = environment.package_folder
    sources = [] if package is None else sorted(package.rglob("tiny*.py"))
    if agent.tiny_task is not None:
        loop = RUNTIME / "mora_environment" / "tiny_training.py"
        world = [ROOT / "data" / "mora_data" / name for name in ("moving_shapes.py", "shapes_corpus.py")]
        sources += [loop, *world]
        digest.update(shape.model_dump_json().encode())
    for path in sources:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
