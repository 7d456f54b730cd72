"""Joining the data-parallel group of one role: the only place that initialises torch.distributed.

`OptimizerAgent` in servers and the coordinator call it once per process. The rendezvous is a file in the run directory,
so no port has to be chosen, and none can be taken by others; groups that span hosts use a `tcp://` address instead.
"""

from __future__ import annotations

import datetime
import logging
import os

import torch
import torch.distributed as dist

from mora_training.training_settings import GroupSettings


def preload(device_type: str) -> None:
    """Import the modules of a group and its optimizer early: it takes seconds, in which other roles load."""
    os.environ["DS_ACCELERATOR"] = device_type  # DeepSpeed would otherwise choose a device by itself
    import deepspeed
    from deepspeed.runtime import compiler

    # ZeRO checks whether an optimizer is Muon. Muon's functions, which are not used here, are compiled when they are
    # defined, and that imports torch's whole compiler (see `eager_optimizer`).
    compile_function = compiler.compile
    compiler.compile = lambda: compiler.dummy_decorator
    try:
        import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401
    finally:
        compiler.compile = compile_function
    if device_type == "cuda":
        _ask_torch_for_memory()


def _ask_torch_for_memory() -> None:
    """Keep DeepSpeed from asking NVML, if pynvml is installed, how much memory of a GPU is free.

    It would take the entries of CUDA_VISIBLE_DEVICES for numbers, and Slurm and MIG name devices there by UUID.
    """
    from deepspeed.accelerator import cuda_accelerator, get_accelerator

    get_accelerator()  # which looks for NVML when it is made
    cuda_accelerator.pynvml = None


def join_group(settings: GroupSettings, device: torch.device) -> None:
    """Initialise DeepSpeed's communication for this process: gloo on CPU, NCCL on CUDA.

    Blocks until every member has joined, at most `join_timeout_s`, which also limits collectives until `limit_waits`.
    A GPU must be the current device of this process.
    """
    # DeepSpeed reads these before its arguments, and tries MPI if they are absent.
    os.environ.update(
        RANK=str(settings.rank),
        WORLD_SIZE=str(settings.world_size),
        LOCAL_RANK=str(device.index or 0),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT="0",
    )
    preload(device.type)
    import deepspeed
    import deepspeed.ops
    from deepspeed.utils import logger

    logger.setLevel(logging.WARNING)
    # Only inference_all_reduce uses it; left on, it compiles C++ at start and leaks 69 MB files in /dev/shm. The whole
    # table is replaced, because reading it runs compilers to find out which of DeepSpeed's operators could be built.
    deepspeed.ops.__compatible_ops__ = {"deepspeed_shm_comm": False}
    deepspeed.init_distributed(
        "gloo" if device.type == "cpu" else "nccl",
        auto_mpi_discovery=False,
        verbose=False,
        init_method=settings.rendezvous,
        rank=settings.rank,
        world_size=settings.world_size,
        timeout=datetime.timedelta(seconds=settings.join_timeout_s),
    )


def limit_waits(timeout_s: float) -> None:
    """Set how long collectives of all groups of this process wait, from the next one on.

    DeepSpeed makes groups of its own, with torch's timeout, from the one that was joined. NCCL ends the process after
    a timeout, which is how a hang is noticed.
    """
    for group in dist.distributed_c10d._world.pg_map:
        dist.distributed_c10d._set_pg_timeout(datetime.timedelta(seconds=timeout_s), group)


def make_patient_group(timeout_s: float) -> dist.ProcessGroup:
    """Make a group of the same members (a collective) for waits that are longer than `GroupSettings.timeout_s`."""
    group: dist.ProcessGroup = dist.new_group(timeout=datetime.timedelta(seconds=timeout_s), backend="gloo")
    return group
