"""The configurations with which a run was started: `config.json`, then `config-2.json` and so on for changed starts."""

from __future__ import annotations

import json
from pathlib import Path

from mora_runtime.errors import ConfigurationError
from mora_runtime.files.durable_files import replace_text
from mora_runtime.files.foreign_file import read_foreign
from mora_runtime.files.foreign_json import parse_object

from mora_launch.config.train_config import TrainConfig, stored_config
from mora_launch.jobs.run_path import CONFIG_COPY
from mora_launch.limits import MAX_CONFIG_NBYTES

_FIRST = Path(CONFIG_COPY)


def has_run(run: Path) -> bool:
    """Whether a job was started in this directory."""
    return (run / CONFIG_COPY).is_file()


def latest_config(run: Path) -> TrainConfig:
    """Return the configuration of the last start of a run.

    Raises:
        ConfigurationError: there is none, or it cannot be read.
    """
    path = _paths(run)[-1]
    try:
        return stored_config(parse_object(read_foreign(path, MAX_CONFIG_NBYTES)), str(path))
    except FileNotFoundError:
        raise ConfigurationError(f"{run}: has no {CONFIG_COPY}, so no job was started there; check --run") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: cannot be read ({error}); put back the file of the run") from None


def record_config(run: Path, config: TrainConfig) -> Path | None:
    """Write the configuration of a start, unless it is the one of the start before. Returns the file, or None."""
    if not has_run(run):
        path = run / CONFIG_COPY
    elif latest_config(run) == config:
        return None
    else:
        path = run / f"{_FIRST.stem}-{len(_paths(run)) + 1}{_FIRST.suffix}"
    replace_text(path, json.dumps(config.model_dump(mode="json"), indent=1))
    return path


def _paths(run: Path) -> list[Path]:
    """The files of a run's configurations, the first start's first."""
    paths = [run / CONFIG_COPY]
    while (later := run / f"{_FIRST.stem}-{len(paths) + 1}{_FIRST.suffix}").is_file():
        paths.append(later)
    return paths
