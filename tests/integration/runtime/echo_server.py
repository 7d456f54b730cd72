"""A server of small agents for the runtime's tests: `python echo_server.py --settings FILE --supervisor-fd N`."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from typing import Any

import mora_runtime
import torch
from mora_runtime import Agent, ModuleAgent, ServerSettings, check_cancelled, remote, report_part, serve


class TwoHeads(torch.nn.Module):
    """Several inputs and outputs, one of them an integer tensor, one input that is only multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(6, 5)
        self.second = torch.nn.Linear(5, 3)

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        hidden = torch.tanh(self.first(x))
        return hidden * scale, self.second(hidden), hidden.argmax(dim=-1)


class EchoAgent(Agent):
    """Methods that show tests the state of the server."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self.num_runs = 0

    @remote
    def add_one(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1

    @remote
    def add_one_to_each(self, xs: list[torch.Tensor]) -> list[torch.Tensor]:
        return [x + 1 for x in xs]

    @remote
    def add_one_in_slot(self, x: torch.Tensor) -> torch.Tensor:
        out = mora_runtime.empty(x.shape, x.dtype)
        torch.add(x, 1, out=out)
        return out

    @remote
    def count(self) -> int:
        self.num_runs += 1
        return self.num_runs

    @remote
    def types(self, a: int, b: float, c: str, d: list[str], e: bool | None = None) -> dict[str, Any]:
        return {"a": a, "b": b, "c": c, "d": d, "e": e}

    @remote(differentiable=True)
    def square(self, x: torch.Tensor) -> dict[str, Any]:
        return {"y": (x * x).sum()}

    @remote(differentiable=True)
    def dropped(self, x: torch.Tensor) -> dict[str, Any]:
        return {"y": torch.nn.functional.dropout(x, 0.5)}

    @remote
    def fail(self) -> None:
        raise RuntimeError("this agent fails on purpose")

    @remote
    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @remote
    def in_parts(self, num_parts: int, until_cancelled: bool = False) -> torch.Tensor:
        for number in range(num_parts):
            report_part(number=number, rows=torch.full((3000,), float(number)))
        report_part(rows=object())  # cannot be sent, and is left out
        while until_cancelled:
            check_cancelled()
            time.sleep(0.01)
        return torch.arange(float(num_parts))

    @remote
    def work(self, seconds: float) -> float:
        started_s = time.monotonic()
        while time.monotonic() - started_s < seconds:
            check_cancelled()
            time.sleep(0.01)
        return time.monotonic() - started_s

    @remote
    def hold_lock(self, busy: bool) -> float:
        """Keep the interpreter lock while computing for some seconds or sleeping for a minute: no other thread runs."""
        started_s = time.monotonic()
        if busy:
            sum(range(600_000_000))
        else:
            ctypes.PyDLL(None).sleep(60)
        return time.monotonic() - started_s

    @remote
    def set_clock_back(self, seconds: float) -> None:
        """Set back the wall clock, only of this process."""
        clock = time.time
        time.time = lambda: clock() - seconds

    @remote
    def gradients(self) -> dict[str, Any]:
        found = {name.replace(".", "_"): p.grad for name, p in self._module.named_parameters()}
        for parameter in self._module.parameters():
            parameter.grad = None
        return found


def make_module() -> TwoHeads:
    torch.manual_seed(7)
    return TwoHeads()


def build(settings: ServerSettings) -> dict[str, Agent]:
    if settings.agents["echo"].options.get("fail_to_load"):
        raise FileNotFoundError("no such weights: absent.safetensors")
    if settings.agents["echo"].options.get("fork_sleeper") and os.fork() == 0:
        signal.pause()  # a tool that holds everything open that its parent had
    module = make_module()
    return {"echo": EchoAgent(module), "heads": ModuleAgent(module)}


if __name__ == "__main__":
    raise SystemExit(serve(ServerSettings.from_argv(), build))
