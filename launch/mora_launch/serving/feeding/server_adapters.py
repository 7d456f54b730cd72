"""The LoRA adapters of one server, for the thread that feeds it: asks for them before a call that has others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mora_environment.adapters.names import ADAPTERS
from mora_runtime.errors import MoraError

from mora_launch.checkpoints.adapter_catalog import AdapterCatalog
from mora_launch.serving.terms import LoraChoice

if TYPE_CHECKING:
    from mora_runtime import Client, PendingReply


class AdapterChange:
    """A change of adapters, on which all calls depend that were sent after it."""

    def __init__(self, pending: PendingReply) -> None:
        self._pending: PendingReply | None = pending
        self._error: MoraError | None = None

    def check(self) -> None:
        """Wait for its answer. Raises: MoraError: it failed, so the calls after it had the wrong adapters."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            try:
                pending.result()
            except MoraError as error:
                self._error = error
        if self._error is not None:
            raise self._error


class ServerAdapters:
    """Which adapters the server can use, and which it uses.

    Args:
        modulation: z of the agent for calls without the adapters of a run; None = none.

    Attributes:
        names: of the adapters that fit the agent's model, as the last server told them.
        unfit: why the others do not fit, a line each.
    """

    def __init__(self, agent: str, catalog: AdapterCatalog, modulation: Any) -> None:
        self._modulation = modulation
        self._of_runs = {
            name: entry.run.read_embeddings().get(agent)
            for name, entry in catalog.entries.items()
            if entry.run is not None and agent in entry.files
        }
        self.names: list[str] = []
        self.unfit: list[str] = []
        self._used: LoraChoice | None = None
        self._is_sure = True  # of what the server uses
        self._change: AdapterChange | None = None

    def connect(self, client: Client, deadline_s: float) -> None:
        """Learn what a server that has just started can use; it uses none."""
        self._used, self._is_sure, self._change = None, True, None
        if ADAPTERS in client.welcome.agents:
            choices = client.call(ADAPTERS, "choices", {}, deadline_s=deadline_s).values
            self.names, self.unfit = choices["names"], choices["unfit"]

    def change_to(self, client: Client, lora: LoraChoice | None, deadline_s: float) -> AdapterChange | None:
        """Have the next call use these adapters; return the change on which it depends, if there was one."""
        if lora != self._used or not self._is_sure:
            name, scale = (None, 1.0) if lora is None else (lora.name, lora.scale)
            pending = client.submit(ADAPTERS, "use", {"name": name, "scale": scale}, deadline_s=deadline_s)
            self._used, self._is_sure, self._change = lora, True, AdapterChange(pending)
        return self._change

    def doubt(self) -> None:
        """Ask again before the next call, because a call has failed."""
        self._is_sure = not self.names

    def modulation(self, lora: LoraChoice | None) -> Any:
        """Return z for a call with these adapters; None = none."""
        return self._modulation if lora is None else self._of_runs.get(lora.name, self._modulation)
