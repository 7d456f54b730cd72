"""The plan of a job for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from mora_launch.jobs.placement import PlacedRole
from mora_launch.planning.alternatives import Alternative, best, busy_shares
from mora_launch.planning.host_needs import HostNeeds
from mora_launch.planning.job_plan import JobPlan
from mora_launch.terminal import format_nbytes


def plan_content(plan: JobPlan, host: HostNeeds, found: Sequence[Alternative]) -> dict[str, Any]:
    """Return the plan for a JSON file; `found` are its `alternatives`."""
    busy = busy_shares(plan)
    chosen = best(found, same_batch=True) or best(found, same_batch=False)
    return {
        "devices": {device: _device_content(plan, device, busy.get(device)) for device in plan.devices},
        "host": host.content(),
        "step_s": None if plan.time is None else plan.time.step_s,
        "samples_s": plan.samples_s,
        "placements": [each.content() for each in found],
        "best": None if chosen is None else chosen.content(),
    }


def _device_content(plan: JobPlan, device: str, busy: float | None) -> dict[str, Any]:
    phase, parts = plan.largest(device)
    gpu = plan.gpus.get(device)
    return {
        "peak_bytes": parts.total,
        "phase": phase,
        "parts": asdict(parts),
        "phases": {name: {"bytes": each.total, "parts": asdict(each)} for name, each in plan.devices[device].items()},
        "memory_bytes": plan.memory_nbytes(device),
        "name": None if gpu is None else gpu.name,
        "is_assumed": gpu is not None and gpu.is_assumed,
        "busy": busy,
    }


def show_plan(
    console: Console, plan: JobPlan, host: HostNeeds, roles: Sequence[PlacedRole], found: Sequence[Alternative]
) -> None:
    """Print the plan: roles, devices, host, time, and the faster of its `alternatives`."""
    console.print(_role_table(roles))
    console.print()
    console.print(_device_table(plan))
    for name, cost in plan.costs.items():
        if cost is None:
            kind = plan.config.agents[name].kind
            console.print(f"agents.{name}: kind `{kind}` does not tell its cost, so its activations are not counted")
    console.print()
    for line in (*_host_lines(host), *_time_lines(plan, found)):
        console.print(line)


def _role_table(roles: Sequence[PlacedRole]) -> Table:
    table = Table("role", "device", "cores", "environment", "shared memory", box=None, pad_edge=False)
    for role in roles:
        table.add_row(role.role, role.device, role.cores, role.environment, format_nbytes(role.shared_nbytes))
    return table


def _device_table(plan: JobPlan) -> Table:
    names = ("weights", "gradients", "optimizer", "ema", "graphs", "buffers", "context")
    table = Table("device", "largest phase", *names, "peak", "of", box=None, pad_edge=False)
    alike: dict[tuple[object, ...], list[str]] = {}
    for device in plan.devices:
        alike.setdefault((*plan.largest(device), plan.memory_nbytes(device)), []).append(device)
    for devices in alike.values():
        phase, parts = plan.largest(devices[0])
        shown = [format_nbytes(asdict(parts)[name]) for name in names]
        room = plan.memory_nbytes(devices[0])
        gpu = plan.gpus.get(devices[0])
        where = "this machine" if gpu is None else f"{gpu.name}{' (assumed)' if gpu.is_assumed else ''}"
        of = f"{format_nbytes(room)} of {where} ({parts.total / room:.0%})"
        table.add_row(_named_together(devices), phase, *shown, format_nbytes(parts.total), of)
    return table


def _named_together(devices: Sequence[str]) -> str:
    """Name devices that need the same: `cuda:0-3`, or `cuda:0,2` where one between them is missing."""
    if len(devices) == 1:
        return devices[0]
    numbers = [int(device.partition(":")[2]) for device in devices]
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"cuda:{numbers[0]}-{numbers[-1]}"
    return f"cuda:{','.join(map(str, numbers))}"


def _host_lines(host: HostNeeds) -> list[str]:
    ram = ", ".join(f"{name.replace('_', ' ')} {format_nbytes(nbytes)}" for name, nbytes in host.ram.items() if nbytes)
    lines = [f"host memory: {_of_this_machine(host.ram_peak_nbytes, host.ram_nbytes)} ({ram})"]
    disk = host.disk
    lines.append(
        f"disk: {format_nbytes(disk.needed_nbytes)} for {disk.num_checkpoints} checkpoint(s), "
        f"{format_nbytes(disk.free_nbytes)} free"
    )
    if host.shared_needed_nbytes:
        lines.append(f"/dev/shm: {_of_this_machine(host.shared_needed_nbytes, host.shared_nbytes)} (NCCL)")
    return lines


def _of_this_machine(needed_nbytes: int, nbytes: int) -> str:
    short = ", which is too little" if needed_nbytes > nbytes else ""
    return f"{format_nbytes(needed_nbytes)}; this machine has {format_nbytes(nbytes)}{short}"


def _time_lines(plan: JobPlan, found: Sequence[Alternative]) -> list[str]:
    if plan.time is None:
        return ["step time: not planned on the CPU, on unknown GPUs, or for kinds that do not tell their cost"]
    time = plan.time
    shares: dict[str, list[str]] = {}
    for device, share in busy_shares(plan).items():
        shares.setdefault(f"{share:.0%}", []).append(device)
    busy = ", ".join(f"{_named_together(devices)} {share}" for share, devices in shares.items())
    lines = [
        f"step: about {time.step_s:.2g} s ({time.micro_batches_s:.2g} s micro-batches, {time.reduction_s:.2g} s "
        f"reduction and optimizer), from counted operations and assumed rates",
        f"busy: {busy}",
    ]
    if plan.samples_s is not None:
        lines.append(f"samples: about {plan.samples_s:.0f} s before training, and as long after it")
    for same_batch in (True, False):
        chosen = best(found, same_batch=same_batch)
        if chosen is not None:
            lines.append(_better_line(plan, chosen))
    return lines


def _better_line(plan: JobPlan, chosen: Alternative) -> str:
    assert chosen.plan.time is not None
    rate, now = chosen.plan.samples_per_second or 0.0, plan.samples_per_second or 1.0
    other = ", with another batch size" if chosen.changes_batch else ""
    changes = " ".join(f"--set {change}" for change in chosen.changes)
    return (
        f"faster: {chosen.told}{other}: step about {chosen.plan.time.step_s:.2g} s, {rate / now:.2g} times the samples "
        f"a second: {changes}"
    )
