"""The library example of the README, word for word, between two virtual environments."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import torch
from mora_launch.environments.catalog import checkout_environments
from mora_launch.environments.venvs import ROOT

_SCRIPT = re.compile(r"^```python\n(# (\w+\.py)\n.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_library_example_of_the_readme_gives_the_gradient_of_one_process(tmp_path: Path) -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    scripts = {name: text for text, name in _SCRIPT.findall(page)}
    assert set(scripts) == {"server.py", "client.py"}
    for name, text in scripts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    other = checkout_environments()["opensora"].python
    assert str(other) != sys.executable
    done = subprocess.run(
        [sys.executable, "client.py", str(other)],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(_gradient_in_one_process())


def _gradient_in_one_process() -> torch.Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(0)  # as server.py does
        net = torch.nn.Linear(4, 1)
    x = torch.ones(8, 4, requires_grad=True)
    net(x).square().mean().backward()
    assert x.grad is not None
    return x.grad[0]
