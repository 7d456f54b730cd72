"""A server of one tiny agent: `python agent_server.py --settings FILE --supervisor-fd N`."""

import torch
from mora_runtime import Agent, ServerSettings, remote, serve


class Adder(Agent):
    """Adds and counts."""

    def __init__(self) -> None:
        self.num_runs = 0

    @remote
    def add_one(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1

    @remote
    def count(self) -> int:
        self.num_runs += 1
        return self.num_runs

    @remote
    def fail_strangely(self) -> None:
        raise ValueError("a file named \udcff does not exist")

    @remote
    def leave(self) -> None:
        raise SystemExit(0)


if __name__ == "__main__":
    raise SystemExit(serve(ServerSettings.from_argv(), lambda settings: {"adder": Adder()}))
