"""`mora train`: from a configuration to a job that runs, or to the reason why it cannot."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

from mora_data.dataset import resolve_dataset
from mora_runtime.errors import SettingsError
from mora_runtime.process import envvars, faults
from mora_runtime.process.run_directory import RunDirectory
from rich.console import Console

from mora_launch.config.train_config import TrainConfig
from mora_launch.evaluation.sample_metrics import SampleMetrics
from mora_launch.jobs.chain import check_chain
from mora_launch.jobs.job_servers import JobServers
from mora_launch.jobs.machine import check_machine
from mora_launch.jobs.placement import check_devices, check_groups, place
from mora_launch.jobs.resources import role_names
from mora_launch.jobs.run_path import made_run, run_path
from mora_launch.jobs.servers import check_agents, traces_folder
from mora_launch.jobs.training_processes import EXIT_INTERRUPTED, TraceRequest, TrainingProcesses
from mora_launch.planning.command import plan_job, show_dry_run
from mora_launch.planning.disk_room import check_disk
from mora_launch.resuming.run_configs import record_config
from mora_launch.resuming.run_data import changed_files, new_dataset, own_dataset
from mora_launch.weights.missing import missing_lines, refuse_missing

DATA = "data"  # of a run: its data set, and the clips that Mora draws


class DryRun(NamedTuple):
    """A request for the plan of a job."""

    gpu: str | None = None  # plan for this kind of GPU, whatever the machine has
    json_file: Path | None = None


def train(
    config: TrainConfig,
    *,
    run: Path | None,
    resume: bool,
    dry_run: DryRun | None = None,
    console: Console,
    trace: TraceRequest | None = None,
) -> int:
    """Run one joint training job to its end.

    Args:
        dry_run: print the plan of the job and start nothing.
        trace: None records nothing; the job is the same either way.

    Returns:
        0 when every step was done, 130 when stopped by Ctrl-C (with a checkpoint).

    Raises:
        MoraError: refused before anything started, or a role failed; the text says which and what to do.
    """
    check_machine()
    config = config.of_chain()
    _plan_faults(config)
    checked = check_agents(config, console)
    check_chain(config, checked)
    roles = place(config, checked)
    path = run_path(run, config.name, resume=resume)
    if dry_run is not None:
        for line in missing_lines(checked.values()):
            console.print(line, style="yellow", markup=False)
        check_groups(roles)
        _check_data(config, path, resume=resume)
        console.print("counting what the job needs ...", style="dim")
        plan = plan_job(config, checked, roles, None, gpu=dry_run.gpu)
        show_dry_run(plan, roles, path, console, dry_run.json_file)
        return 0
    refuse_missing(checked.values())
    SampleMetrics(config, path, console).check()
    driver = check_devices(roles)
    if driver is not None:
        console.print("counting what the job needs on its GPUs ...")
        plan_job(config, checked, roles, driver).check_memory()
    check_disk(config, checked, path)
    dataset = own_dataset(config, path / DATA) if resume else None
    with RunDirectory.create(made_run(run, path), lock=True) as directory:
        record_config(directory.path, config)
        if dataset is None:
            dataset = new_dataset(config, directory.path / DATA, config.chain_names)
        for line in changed_files(directory.path / DATA) if resume else ():
            console.print(f"warning: {line}; the job continues with it", style="yellow", markup=False)
        traces = None if trace is None else traces_folder(directory.path)
        servers = JobServers(config, checked, directory, console, traces=traces)
        code = TrainingProcesses(config, directory, dataset, servers, resume=resume, trace=trace).run(console)
        return code if code != 0 else _follow(SampleMetrics(config, directory.path, console), console)


def _follow(metrics: SampleMetrics, console: Console) -> int:
    """Measure the samples of a job that has ended. Returns the exit code."""
    try:
        metrics.follow()
    except KeyboardInterrupt:
        console.print("training is done; stopped while its samples were measured: --resume measures the others")
        return EXIT_INTERRUPTED
    return 0


def _check_data(config: TrainConfig, run: Path, *, resume: bool) -> None:
    """Read the user's data as a start would, and decode every clip once, without writing to the run."""
    if config.data.path is None:
        return
    if resume and own_dataset(config, run / DATA) is not None:
        return
    with tempfile.TemporaryDirectory(prefix="mora-data-") as folder:
        resolve_dataset(config.data, config.clip, Path(folder), config.chain_names)


def _plan_faults(config: TrainConfig) -> None:
    """Give the roles the faults of the configuration besides those of `MORA_FAULT`, where they can come true."""
    planned = faults.parse(",".join([envvars.fault(), *config.faults]))
    roles = role_names(config)
    for fault in planned:
        if fault.role not in roles:
            known = ", ".join(roles)
            raise SettingsError(f"MORA_FAULT `{fault}`: no role `{fault.role}` in this job (there are {known})")
        kind = "coordinator" if fault.role.startswith("coordinator.") else "server"
        if kind not in faults.POINTS[fault.point]:
            raise SettingsError(f"MORA_FAULT `{fault}`: a {kind} never passes `{fault.point}`")
    if planned:
        envvars.set_fault(",".join(map(str, planned)))
