"""The configuration with which a run is continued: its own, with the changes that are allowed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mora_runtime.errors import ConfigurationError

from mora_launch.config.train_config import TrainConfig, changed_config, load_config
from mora_launch.jobs.run_status import STATUS_FILE, read_status
from mora_launch.resuming.drift import Difference, check_differences, differences
from mora_launch.resuming.run_configs import has_run, latest_config


class ResumedConfig(NamedTuple):
    """A configuration, and the keys in which it differs from the run's last start."""

    config: TrainConfig
    changed: tuple[Difference, ...] = ()


def resumed_config(run: Path, config: Path | None, changes: Sequence[str]) -> ResumedConfig:
    """Return the configuration of a start with `--resume`.

    Args:
        config: the file that the user named; None takes the run's own configuration.
        changes: `--set`, on top of either.

    Raises:
        SettingsError: it differs from the run's in a key that may not change.
        ConfigurationError: the run's configuration cannot be read.
    """
    if not has_run(run) and config is not None:
        return ResumedConfig(load_config(config, changes))  # killed before it wrote anything, or never started
    _check_command(run)
    own = latest_config(run)
    if config is None:
        given = changed_config(own.model_dump(mode="json"), changes, source=f"{run} with --set")
    else:
        given = load_config(config, changes)
    found = differences(own, given.of_chain())
    check_differences(found, run)
    return ResumedConfig(given, tuple(found))


def _check_command(run: Path) -> None:
    """Refuse a run that another command made (ConfigurationError)."""
    if not (run / STATUS_FILE).is_file():
        return  # killed before its first process started
    command = read_status(run).command
    if command != "train":
        raise ConfigurationError(f"{run}: is a run of `mora {command}`, expected one of `mora train`; check --run")
