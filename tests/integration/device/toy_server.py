"""A server of one toy agent on the fake device: `TOY_AGENT` is its name, kind and seed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mora_runtime import ServerSettings, serve
from mora_runtime.device import ipc_device

TESTS = Path(__file__).parents[2]
sys.path[:0] = [str(TESTS / "unit" / "runtime"), str(TESTS.parent)]

from fake_device import FakeDevice  # noqa: E402

from tests.toy_agents.host import toy  # noqa: E402

if __name__ == "__main__":
    name, kind, seed = os.environ["TOY_AGENT"].split(":")
    fake = FakeDevice()
    ipc_device.open_device = lambda device: fake
    raise SystemExit(serve(ServerSettings.from_argv(), lambda settings: {name: toy(kind, int(seed))}))
