"""An extra agent of a server that serves requests: it puts LoRA adapters on the model of the server's own agent.

A client asks for adapters before a call; calls of one client run in their order, so the next call has them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mora_runtime import Agent, remote
from mora_runtime.errors import BadArgument, CheckpointError
from mora_runtime.files.foreign_file import read_foreign
from mora_runtime.rpc.server_settings import AllowedAdapters
from safetensors import SafetensorError
from safetensors.torch import load

from mora_environment.adapters.adapter_switch import AdapterSwitch


class AdapterAgent(Agent):
    """Keeps all allowed adapters in host memory; at most those of one name are on the model.

    Args:
        module: the model.
        allowed: their files are compared with their hashes.

    Raises:
        CheckpointError: a file cannot be read or has changed, or adapters that must fit do not.
    """

    def __init__(self, module: torch.nn.Module, allowed: Sequence[AllowedAdapters]) -> None:
        self._switch = AdapterSwitch(module)
        self._unfit: list[str] = []
        for each in allowed:
            tensors = _read(each)
            try:
                self._switch.add(each.name, tensors, each.alpha)
            except CheckpointError as error:
                if each.must_fit:
                    raise
                self._unfit.append(str(error))

    @remote
    def choices(self) -> dict[str, Any]:
        """`names` that `use` takes; `unfit`: why the other allowed adapters do not fit this model, a line each."""
        return {"names": self._switch.names, "unfit": self._unfit}

    @remote
    def use(self, name: str | None, scale: float) -> dict[str, Any]:
        """Put these adapters on the model, in place of all others; None takes them off.

        Args:
            scale: factor of what they add.
        """
        if name is not None and name not in self._switch.names:
            raise BadArgument(f"name: expected one of {', '.join(self._switch.names) or 'none'}, got `{name[:60]}`")
        self._switch.use(name, scale)
        return {}


def _read(allowed: AllowedAdapters) -> dict[str, torch.Tensor]:
    """Return the tensors of a file by the names of the model's layers."""
    try:
        content = read_foreign(Path(allowed.file), allowed.nbytes)
        if hashlib.sha256(content).hexdigest() != allowed.sha256:
            raise CheckpointError(f"adapters `{allowed.name}`: {allowed.file} has changed since the start; start again")
        tensors = load(content)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"adapters `{allowed.name}`: {allowed.file} cannot be read ({error})") from None
    return {name.removeprefix(allowed.prefix): tensor for name, tensor in tensors.items()}
