"""`mora train`: from a configuration to a job that runs, or to the reason why it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mora_data.dataset import resolve_dataset
from mora_runtime.errors import CheckpointError, SettingsError
from mora_runtime.process import envvars, faults
from mora_runtime.process.run_directory import RunDirectory
from mora_trainer.checkpoint.commit_record import committed
from rich.console import Console

from mora_launch.config.train_config import TrainConfig
from mora_launch.jobs.chain import check_chain
from mora_launch.jobs.job_servers import JobServers
from mora_launch.jobs.placement import check_devices, is_on_gpu, place
from mora_launch.jobs.resources import role_names
from mora_launch.jobs.run_path import CONFIG_COPY, run_path
from mora_launch.jobs.servers import check_agents, traces_folder, write_json
from mora_launch.jobs.training_processes import TraceRequest, TrainingProcesses
from mora_launch.planning.command import plan_job, show_dry_run
from mora_launch.planning.disk_room import check_disk
from mora_launch.weights.missing import missing_lines, refuse_missing


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
    config = config.of_chain()
    _plan_faults(config)
    checked = check_agents(config, console)
    check_chain(config, checked)
    roles = place(config, checked)
    path = run_path(run, config.name, resume=resume)
    if dry_run is not None:
        for line in missing_lines(checked.values()):
            console.print(line, style="yellow", markup=False)
        plan = plan_job(config, checked, roles, gpu=dry_run.gpu)
        show_dry_run(plan, roles, path, console, dry_run.json_file)
        return 0
    refuse_missing(checked.values())
    check_devices(roles)
    if any(is_on_gpu(role) for role in roles):
        console.print("counting what the job needs on its GPUs ...")
        plan_job(config, checked, roles).check_memory()
    if resume:
        _check_saved_agents(path, [name for name in config.chain_names if checked[name].has_optimizer])
    check_disk(config, checked, path)
    with RunDirectory.create(path, lock=True) as directory:
        dataset = resolve_dataset(config.data, config.clip, directory.path / "data", config.chain_names)
        write_json(directory.path / CONFIG_COPY, config.model_dump(mode="json"))
        traces = None if trace is None else traces_folder(directory.path)
        servers = JobServers(config, checked, directory, console, traces=traces)
        return TrainingProcesses(config, directory, dataset, servers, resume=resume, trace=trace).run(console)


def _check_saved_agents(run: Path, names: list[str]) -> None:
    """Refuse to continue with other agents than those of the committed checkpoint.

    With fewer, the next checkpoint would lack those that are left out.
    """
    checkpoints = run / "checkpoints"
    info = committed(checkpoints) if checkpoints.is_dir() else None
    if info is None:
        return
    saved = {file.path.partition("/")[0] for file in info.files} - {"coordinator"}
    if saved != set(names):
        raise CheckpointError(
            f"{checkpoints / info.folder} has the agents {', '.join(sorted(saved))}, but those of the configuration "
            f"that can be trained are {', '.join(sorted(names))}; give the configuration that the run started with, "
            "or start another run"
        )


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
