"""`mora doctor`: finds problems of this machine and of a run, and says how to fix them."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from mora_runtime.errors import CheckpointError, ConfigurationError
from mora_runtime.files.durable_files import verify
from mora_runtime.files.foreign_file import open_foreign, read_foreign
from mora_runtime.files.foreign_json import parse_object
from mora_trainer.checkpoint.commit_record import committed
from mora_trainer.checkpoint.pin import CheckpointPin
from rich.console import Console

from mora_launch.config.train_config import TrainConfig, stored_config
from mora_launch.environments.catalog import checkout_environments
from mora_launch.environments.venvs import CONTROL, ROOT, torch_backend
from mora_launch.jobs.cuda_driver import CudaDriver, ask_driver
from mora_launch.jobs.doctor_roles import role_findings
from mora_launch.jobs.finding import Finding
from mora_launch.jobs.machine import machine_findings
from mora_launch.jobs.run_path import CONFIG_COPY
from mora_launch.jobs.run_status import RunStatus, read_status
from mora_launch.jobs.status import true_state
from mora_launch.limits import MAX_CONFIG_NBYTES, MAX_LOG_LINE_NBYTES

_FREE_NBYTES_NEEDED = 2 << 30
_SHARED_MEMORY = Path("/dev/shm")
_SHARED_NBYTES_NEEDED = 1 << 30
_NUM_ERROR_LINES = 5


def examine(run: Path | None, config: TrainConfig | None, console: Console) -> int:
    """Print all findings about this machine, a configuration and a run; return 1 if there is a problem, else 0.

    Args:
        config: None takes the one that the run was started with.
    """
    driver = ask_driver()
    findings = [*_machine(), *_gpus(driver), *(_run(run) if run is not None else ()), *_roles(run, config, driver)]
    for finding in findings:
        mark, style = ("!", "yellow") if finding.fix else ("ok", "green")
        console.print(f"{mark:>2}  {finding.what}", style=style, markup=False)
        if finding.fix:
            console.print(f"    -> {finding.fix}", markup=False)
    return 1 if any(finding.fix for finding in findings) else 0


def _machine() -> Iterator[Finding]:
    venvs = (CONTROL, *(each.venv for each in checkout_environments().values() if each.venv is not None))
    for venv in venvs:
        refusal = venv.refusal()
        if refusal is not None:
            yield Finding(f"environment {venv.name}: {refusal}", "run Mora as the user that built it")
            continue
        built = venv.is_built()
        yield Finding(
            f"environment {venv.name}: {'built' if built else 'missing or outdated'}",
            "" if built else f"./mora env build {venv.name}",
        )
    yield _disk(ROOT)
    yield from machine_findings()
    available_nbytes = psutil.virtual_memory().available
    yield Finding(
        f"memory available: {available_nbytes / (1 << 30):.1f} GiB",
        "" if available_nbytes >= _FREE_NBYTES_NEEDED else "close other programs, or lower shared_memory_nbytes",
    )
    yield Finding(f"torch: built for {torch_backend()}")


def _gpus(driver: CudaDriver) -> Iterator[Finding]:
    if not driver.gpus:
        is_broken = torch_backend() == "cuda"  # there is a driver, and it shows nothing
        yield Finding(f"GPUs: none ({driver.problem})", "see nvidia-smi and CUDA_VISIBLE_DEVICES" if is_broken else "")
        return
    yield Finding(f"NVIDIA driver: for CUDA {driver.cuda} and older")
    for index, gpu in enumerate(driver.gpus):
        yield Finding(f"cuda:{index}: {gpu.name}, {gpu.nbytes / (1 << 30):.1f} GiB, at {gpu.pci_bus_id}")
    shared_nbytes = shutil.disk_usage(_SHARED_MEMORY).total
    yield Finding(
        f"{_SHARED_MEMORY}: {shared_nbytes / (1 << 30):.1f} GiB",
        ""
        if shared_nbytes >= _SHARED_NBYTES_NEEDED
        else "NCCL, which connects GPUs, fails with so little: give the "
        "container more, for example by `docker run --shm-size=1g`",
    )


def _disk(path: Path, needed_nbytes: int = _FREE_NBYTES_NEEDED) -> Finding:
    free_nbytes = shutil.disk_usage(path).free
    return Finding(
        f"disk of {path}: {free_nbytes / (1 << 30):.1f} GiB free",
        ""
        if free_nbytes >= needed_nbytes
        else f"free {needed_nbytes / (1 << 30):.1f} GiB in all: a job ends if its checkpoint cannot be written",
    )


def _roles(run: Path | None, config: TrainConfig | None, driver: CudaDriver) -> Iterator[Finding]:
    path = None if run is None else run / CONFIG_COPY
    if config is None and path is not None and path.exists():
        try:
            config = stored_config(parse_object(read_foreign(path, MAX_CONFIG_NBYTES)), str(path))
        except (ConfigurationError, OSError, ValueError) as error:
            yield Finding(f"{path} cannot be read: {error}", "it was changed, or written by another version of Mora")
    if config is not None:
        yield from role_findings(config, driver)


def _run(run: Path) -> Iterator[Finding]:
    try:
        status = read_status(run)
    except ConfigurationError as error:
        yield Finding(str(error), "name the directory that `./mora train` or `./mora serve` printed as `run ...`")
        return
    mode = stat.S_IMODE(run.stat().st_mode)
    yield Finding(f"run directory mode {mode:04o}", "" if not mode & 0o077 else f"chmod 0700 {run}")
    yield _disk(run, max(_FREE_NBYTES_NEEDED, _last_checkpoint_nbytes(run)))
    yield from _end(run, status)
    for incident in status.incidents:
        yield Finding(f"recovered: {incident.cause.splitlines()[0]}; {incident.then}")
    if status.command == "train":
        yield _checkpoint(run)
    for line in _last_errors(run / "logs"):
        yield Finding(f"log: {line}")


def _end(run: Path, status: RunStatus) -> Iterator[Finding]:
    state = true_state(run, status)
    resume = _RESUME[status.command].format(run=run)
    if state == "failed":
        yield Finding(f"failed: {status.cause}", _advice(status.cause or "") or resume)
    elif state == "killed":
        roles = ", ".join(role.role for role in status.roles) or "no roles yet"
        yield Finding(
            f"its launcher (process {status.launcher_pid}) was killed while {status.state}, with {roles}",
            f"{resume}; if you did not kill it, look for `Out of memory` in the kernel's log (dmesg)",
        )
    elif state == "interrupted":
        yield Finding("stopped on request; " + resume)
    else:
        yield Finding(f"state: {state}")


_RESUME = {
    "train": "./mora train --resume --run {run} continues from the committed checkpoint",
    "serve": "./mora serve CONFIG --run {run} starts it again",
}

_ADVICE = (
    ("No space left on device", "free space on the disk of the run, then continue with --resume"),
    ("was killed by SIGKILL", "if not by you: see `dmesg | grep -i oom`; lower batch sizes or set recompute: true"),
    ("froze", "its log or `py-spy dump` shows where; restarts.frozen_after_s sets how long a role may be silent"),
    ("out of memory", "set agents.*.recompute, or lower training.micro_batch_size or pipeline.max_in_flight"),
    ("lost its device", "`dmesg | grep -i xid` tells of faults of a GPU; CUDA_VISIBLE_DEVICES can leave it out"),
    ("could not load its agents", "the lines below name the file or option that is wrong"),
    ("gradients were not finite", "lower the learning rate, or check the data of the named steps"),
    ("restarts in", "repeated deaths usually have one cause: see the first incident and the role's log"),
)


def _advice(cause: str) -> str:
    return next((advice for words, advice in _ADVICE if words in cause), "")


def _last_checkpoint_nbytes(run: Path) -> int:
    """Size of the committed checkpoint, which the next one needs as well; 0 if there is none that can be read."""
    try:
        info = committed(run / "checkpoints")
    except CheckpointError:
        return 0  # `_checkpoint` tells about it
    return 0 if info is None else sum(file.nbytes for file in info.files)


def _checkpoint(run: Path) -> Finding:
    try:
        info = committed(run / "checkpoints")
        if info is None:
            return Finding("no checkpoint has been committed yet; a resume begins at step 0")
        with CheckpointPin(run / "checkpoints", info.folder):
            info.check_files(run / "checkpoints" / info.folder)
            for file in info.files:
                verify(file, run / "checkpoints" / info.folder)
    except CheckpointError as error:
        return Finding(f"checkpoint: {error}", "`./mora checkpoint list` shows older ones; point COMMITTED at one")
    return Finding(f"checkpoint of step {info.step}: {len(info.files)} files match their manifest")


def _last_errors(logs: Path) -> list[str]:
    """Return the last errors in the logs of all roles, newest last."""
    found: list[tuple[float, str]] = []
    for path in logs.glob("*.jsonl"):
        for event in _events(path):
            if event.get("level") in ("ERROR", "CRITICAL"):
                text = str(event.get("traceback", "")).strip().splitlines()[-1:] or [""]
                what = f"{event.get('role')}.{event.get('gen')}: {event.get('event')}"
                ts = event.get("ts")
                found.append((float(ts) if isinstance(ts, int | float) else 0.0, f"{what} {text[0]}".strip()))
    return [line for _, line in sorted(found)[-_NUM_ERROR_LINES:]]


def _events(path: Path) -> Iterator[dict[str, Any]]:
    try:
        file = open(open_foreign(path), "rb")  # noqa: SIM115 - closed below
    except OSError:
        return
    with file:
        while line := file.readline(MAX_LOG_LINE_NBYTES):
            try:
                event = parse_object(line)
            except ValueError:
                continue  # a line cut off when its writer was killed
            yield event
