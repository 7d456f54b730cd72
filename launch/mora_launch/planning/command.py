"""Planning a job before it starts: `--dry-run`, and the check of a job that will run on GPUs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.agent_cost import ask_costs
from mora_launch.environments.agent_options import CheckedOptions
from mora_launch.jobs.cuda_driver import CudaDriver, ask_driver
from mora_launch.jobs.placement import PlacedRole, is_on_gpu
from mora_launch.planning.alternatives import alternatives
from mora_launch.planning.disk_room import disk_room
from mora_launch.planning.host_needs import host_needs
from mora_launch.planning.job_plan import JobPlan
from mora_launch.planning.machine import planned_gpu
from mora_launch.planning.plan_table import plan_content, show_plan


def plan_job(
    config: TrainConfig,
    checked: Mapping[str, CheckedOptions],
    roles: list[PlacedRole],
    driver: CudaDriver | None,
    *,
    gpu: str | None = None,
) -> JobPlan:
    """Return the plan of a job.

    Args:
        roles: as placed.
        driver: its answer; None asks it where a role is on a GPU.
        gpu: plan for this kind of GPU, whatever the machine has.

    Raises:
        PlacementError: a device is neither a GPU nor the CPU.
        EnvironmentFailed: an environment could not tell what its agents cost.
    """
    devices = {role.device for role in roles if is_on_gpu(role)}
    gpus = {}
    if devices:
        driver = driver or ask_driver()
        gpus = {device: planned_gpu(device, driver, gpu) for device in devices}
    return JobPlan(config, checked, ask_costs(config, checked), gpus)


def show_dry_run(plan: JobPlan, roles: list[PlacedRole], run: Path, console: Console, json_file: Path | None) -> None:
    """Print the plan and write it to `json_file`, then refuse a job that does not fit.

    Raises:
        PlacementError: a device is too small.
    """
    config = plan.config
    cpu = plan.devices.get("cpu")
    host = host_needs(
        list(plan.roles.values()),
        cpu_nbytes=0 if cpu is None else plan.largest("cpu")[1].total,
        num_replicas=config.replicas,
        shared_nbytes=sum(role.shared_nbytes for role in roles),
        disk=disk_room(config, plan.checked, run),
    )
    found = alternatives(plan)
    show_plan(console, plan, host, roles, found)
    if json_file is not None:
        json_file.write_text(json.dumps(plan_content(plan, host, found), indent=1) + "\n", encoding="utf-8")
    plan.check_memory()
