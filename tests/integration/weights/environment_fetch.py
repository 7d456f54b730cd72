"""The command `fetch` of a real environment, with the version of the Hub's client that it has."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fake_hub.hub import FakeHub
from mora_launch.environments.catalog import checkout_environments
from mora_launch.environments.venvs import ROOT

NAME = "some/model"
_SIZE = {"num_frames": 5, "height": 32, "width": 32}
# One repository for everything, so that both environments load files of the same names.
AGENTS: dict[str, dict[str, Any]] = {
    "sd3": {"kind": "multimodal", "options": {"model": NAME}, "source": "agents.judge.options"},
    "opensora": {
        "kind": "opensora",
        "options": {"model": NAME, "vae": NAME, "text_encoder": NAME, **_SIZE},
        "source": "agents.video.options",
    },
}
ENVIRONMENTS = list(AGENTS)


@dataclass
class Fetch:
    """One environment that fetches from a Hub into a cache of its own.

    Args:
        home: HF_HOME.
    """

    environment: str
    hub: FakeHub
    home: Path
    token: str | None = None

    @property
    def repository(self) -> Path:
        """Folder of the repository in the cache."""
        return self.home / "hub" / "models--some--model"

    @property
    def command(self) -> list[str]:
        """The command line."""
        found = checkout_environments()[self.environment]
        return [str(found.python), "-m", found.package, "fetch"]

    def variables(self, **more: str) -> dict[str, str]:
        """The environment variables of its process."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE_"))}
        return {**own, **self.hub.variables(self.home, self.token), **more}

    def request(self, *, download: bool = True, num_agents: int = 1, **more: Any) -> str:
        """A request on one line."""
        return json.dumps({"agents": [AGENTS[self.environment]] * num_agents, "download": download, **more}) + "\n"

    def run(self, *, download: bool = True, num_agents: int = 1, **variables: str) -> dict[str, Any]:
        """Run the command to its end; the answer."""
        done = subprocess.run(
            self.command, input=self.request(download=download, num_agents=num_agents), capture_output=True, text=True,
            timeout=120, check=False, cwd=ROOT, env=self.variables(**variables),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def start(self, **more: Any) -> subprocess.Popen[str]:
        """Start the command; its standard input stays open."""
        process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
            env=self.variables(),
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(self.request(**more))
        process.stdin.flush()
        return process
