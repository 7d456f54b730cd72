"""Hosts one toy agent for `spawn`: `TOY_AGENT` is its name, kind and seed."""

import os
from typing import Any

import torch
from mora_environment.kind import imported
from mora_runtime import host

from tests.toy_agents.__main__ import KINDS


def toy(kind: str, seed: int) -> Any:
    """One agent, as a server builds it."""
    content = {} if kind == "critic" else {"seed": seed}
    return imported(KINDS[kind].build, owner=kind)(KINDS[kind].options(**content), torch.device("cpu"))


if __name__ == "__main__":
    name, kind, seed = os.environ["TOY_AGENT"].split(":")
    torch.set_num_threads(1)
    host(**{name: toy(kind, int(seed))})
