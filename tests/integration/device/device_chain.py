"""Two servers that share device memory, and a coordinator between them that cannot open it."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mora_runtime import Client, RunDirectory, Session
from mora_runtime.process.role_process import RoleProcess
from mora_runtime.process.supervisor import Supervisor
from mora_runtime.rpc.pending import Reply

HERE = Path(__file__).parent
NUMEL = 8192
DEADLINE_S = 30.0
POOL_NBYTES = 4 << 20
FAKE = {"FAKE_ROUTE": "same device"}


class Servers:
    """Starts servers in a run."""

    def __init__(
        self, run: RunDirectory, supervisor: Supervisor, device: str, variables: dict[str, str],
        *, script: str = "device_server.py",
    ) -> None:  # fmt: skip
        self.run = run
        self._script = script
        self._supervisor = supervisor
        self._device = device
        self._variables = variables

    def start(self, *roles: str, pool_nbytes: int = POOL_NBYTES, **variables: str) -> list[RoleProcess]:
        """Start servers and wait until they serve."""
        started = [self._start(role, pool_nbytes, variables) for role in roles]
        self._supervisor.wait_ready(started, deadline_s=120)
        return started

    def kill(self, server: RoleProcess) -> None:
        """Kill a server and wait for its end."""
        server.process.kill()
        server.process.wait(10)
        self._supervisor.discard([server])

    def _start(self, role: str, pool_nbytes: int, variables: dict[str, str]) -> RoleProcess:
        settings = {
            "role": role, "name": role.partition(".")[0], "run_dir": str(self.run.path), "device": self._device,
            "device_pool_nbytes": pool_nbytes, "arena_budget_nbytes": 64 << 20,
        }  # fmt: skip
        path = self.run.role_folder(role) / "settings.json"
        path.write_text(json.dumps(settings))
        command = [sys.executable, str(HERE / self._script), "--settings", str(path)]
        return self._supervisor.start(
            role, command, variables={"OMP_NUM_THREADS": "1", **self._variables, **variables},
            output=self.run.logs / f"{role}.out", folder=HERE,
        )  # fmt: skip


class Chain:
    """A coordinator's connections to two servers."""

    def __init__(self, session: Session, first: str, second: str) -> None:
        self.session = session
        self.first = session.connect(first, deadline_s=DEADLINE_S)
        self.second = session.connect(second, deadline_s=DEADLINE_S)

    def forward(self, x: torch.Tensor, *, grad: tuple[str, ...] | None = ("x",)) -> Reply:
        """Run the first stage, whose output only the second one reads."""
        return self.first.submit(
            "stage", "forward", {"x": x}, grad=grad, onward={"y": self.second}, deadline_s=DEADLINE_S
        ).result()

    def double(self, x: torch.Tensor) -> Any:
        """A reference to twice the tensor, which only the second server reads."""
        pending = self.first.submit("stage", "double", {"x": x}, onward={"y": self.second}, deadline_s=DEADLINE_S)
        return pending.result().values["y"]

    def loss(self, y: Any) -> Reply:
        """Run the second stage and its backward; only the first one reads the gradient."""
        return self.second.submit(
            "stage", "loss", {"y": y}, grad=("y",), output_grads={"loss": torch.tensor(1.0)}, norms=("y",),
            onward={"y": self.first}, deadline_s=DEADLINE_S,
        ).result()  # fmt: skip

    def step(self, x: torch.Tensor) -> tuple[float, list[torch.Tensor]]:
        """One training step over both: the loss, and the gradients of x and of both weights."""
        forward = self.forward(x)
        loss = self.loss(forward.values["y"])
        assert forward.ticket is not None
        found = self.first.backward(forward.ticket, {"y": loss.gradients["y"]}, deadline_s=DEADLINE_S)
        weights = [ask(client, "gradient")["value"].tensor().clone() for client in (self.first, self.second)]
        return float(loss.values["loss"].tensor()), [found["x"].tensor().clone(), *weights]

    def introduced(self) -> None:
        """Exchange messages until both servers have opened each other's pool and know it."""
        x = torch.ones(NUMEL)

        def use_device() -> bool:
            before = [client.ping(DEADLINE_S).num_device for client in (self.first, self.second)]
            self.step(x)
            return all(
                client.ping(DEADLINE_S).num_device > count
                for client, count in zip((self.first, self.second), before, strict=True)
            )

        assert eventually(use_device), "no tensor has crossed in device memory"


def ask(client: Client, method: str, **arguments: Any) -> dict[str, Any]:
    """Call a method of a stage and return its values."""
    return client.call("stage", method, arguments, deadline_s=DEADLINE_S).values


def in_one_process(x: torch.Tensor, device: str = "cpu") -> tuple[float, list[torch.Tensor]]:
    """The same step without servers."""
    weights = []
    for _ in range(2):
        torch.manual_seed(3)
        weights.append(torch.nn.Parameter(torch.rand(NUMEL, device=device)))
    leaf = x.to(device).clone().requires_grad_(True)
    loss = (weights[1] * torch.sin(weights[0] * leaf)).square().mean()
    loss.backward()
    gradients = [each.grad.cpu() for each in (leaf, *weights) if each.grad is not None]
    return float(loss.detach()), gradients


def eventually(holds: Callable[[], bool], within_s: float = DEADLINE_S) -> bool:
    """True as soon as `holds` is; False if it is not within the time. What it reads needs other processes' messages."""
    deadline = time.monotonic() + within_s
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(0.002)
    return held
