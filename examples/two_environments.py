"""A module in another Python environment, trained from this one: two_environments.py [OTHER_PYTHON]"""

import sys
from pathlib import Path

import mora_runtime
import torch


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


if "--settings" in sys.argv:  # this file runs in the other environment too
    mora_runtime.host(net=network())

other = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1] / ".venvs/opensora/bin/python"
local, x = network(), torch.linspace(-1, 1, 32).reshape(8, 4).requires_grad_()
with mora_runtime.spawn(other, __file__) as peer:
    remote = peer.module("net")
    remote(x).square().mean().backward()  # through the other process and back
    gradient, x.grad = x.grad, None
    peer.step("net", lr=0.1)
    after = remote(x.detach())

local(x).square().mean().backward()
torch.optim.SGD(local.parameters(), lr=0.1).step()
for here, there in ((x.grad, gradient), (local(x), after)):
    torch.testing.assert_close(there, here)
print("gradients are equal")
