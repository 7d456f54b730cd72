"""Joining the data-parallel group of one role: the only place that initialises torch.distributed.

Called once per process by `OptimizerAgent` in servers and by the coordinator. The rendezvous is a file in the run
directory, so no port is chosen, guessed or raced for; groups that span hosts name a `tcp://` address instead.
"""

from __future__ import annotations

import datetime
import logging
import os

import torch

from mora_training.training_settings import GroupSettings


def preload(device_type: str) -> None:
    """Import what a group and its optimizer import at first use: seconds that pass better while other roles load."""
    if device_type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed

    # ZeRO asks whether an optimizer is Muon. Its functions, which nothing here calls, are compiled where they are
    # defined, and that loads torch's whole compiler: a second of processor time in every process.
    before = os.environ.get("TORCHDYNAMO_DISABLE")
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    try:
        import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401
    finally:
        if before is None:
            del os.environ["TORCHDYNAMO_DISABLE"]
        else:
            os.environ["TORCHDYNAMO_DISABLE"] = before


def join_group(settings: GroupSettings, device: torch.device) -> None:
    """Initialise DeepSpeed's communication for this process: gloo on CPU, NCCL on CUDA.

    Blocks until every member has joined, at most `timeout_s`.
    """
    # DeepSpeed reads these before it looks at its arguments, and tries MPI where they are absent.
    os.environ.update(
        RANK=str(settings.rank),
        WORLD_SIZE=str(settings.world_size),
        LOCAL_RANK=str(device.index or 0),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT="0",
    )
    if device.type != "cpu":
        torch.cuda.set_device(device)
    preload(device.type)
    import deepspeed
    import deepspeed.ops
    from deepspeed.utils import logger

    logger.setLevel(logging.WARNING)
    # Its only use is inference_all_reduce; leaving it on compiles C++ at start and leaks 69 MB files in /dev/shm.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(
        "gloo" if device.type == "cpu" else "nccl",
        auto_mpi_discovery=False,
        verbose=False,
        init_method=settings.rendezvous,
        rank=settings.rank,
        world_size=settings.world_size,
        timeout=datetime.timedelta(seconds=settings.timeout_s),
    )
