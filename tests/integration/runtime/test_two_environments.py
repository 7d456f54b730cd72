"""A module in another environment, with other versions of numpy and safetensors, gives the same bits."""

import subprocess
from pathlib import Path

import pytest
import torch
from echo_server import make_module
from mora_launch.environments.catalog import checkout_environments
from mora_launch.environments.venvs import CONTROL
from mora_runtime import RunDirectory
from safetensors.torch import load_file
from server_starter import Starter

CLIENT = """
import sys
from pathlib import Path
import numpy, torch
from mora_runtime import RemoteModule, RunDirectory, Session
from safetensors.torch import save_file
with Session.open(RunDirectory.open(Path(sys.argv[1])), "client.8") as session:
    client = session.connect(sys.argv[2], deadline_s=60)
    heads = RemoteModule(client, "heads", deadline_s=60)
    torch.manual_seed(1)
    x, scale = torch.randn(4, 6, requires_grad=True), torch.randn(5, requires_grad=True)
    first, second, _ = heads(x, scale)
    (first.sin().sum() + second.pow(2).sum()).backward()
    found = client.call("echo", "gradients", {}, deadline_s=60).values
    found = {name: reference.tensor().clone() for name, reference in found.items()}
    save_file({"x": x.grad, "scale": scale.grad, "first": first.detach(), **found}, sys.argv[3])
print(numpy.__version__)
"""


def python(environment: str) -> str:
    return str({"control": CONTROL, **checkout_environments()}[environment].python)


def expected() -> dict[str, torch.Tensor]:
    """Gradients of the same modules in one process."""
    module = make_module()
    torch.manual_seed(1)
    x, scale = torch.randn(4, 6, requires_grad=True), torch.randn(5, requires_grad=True)
    first, second, _ = module(x, scale)
    (first.sin().sum() + second.pow(2).sum()).backward()
    parameters = {name.replace(".", "_"): value.grad for name, value in module.named_parameters()}
    return {"x": x.grad, "scale": scale.grad, "first": first.detach(), **parameters}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("of_client", "of_server"), [("control", "opensora"), ("opensora", "control"), ("sd3", "opensora")]
)
def test_gradients_of_inputs_and_parameters_are_bit_equal_across_environments(
    run: RunDirectory, start: Starter, tmp_path: Path, of_client: str, of_server: str
) -> None:
    start("foreign.0", python=python(of_server))
    path = tmp_path / "found.safetensors"
    command = [python(of_client), "-c", CLIENT, str(run.path), "foreign.0", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    ours, theirs = done.stdout.strip(), numpy_version(of_server)
    assert ours.partition(".")[0] != theirs.partition(".")[0], "two environments that cannot be one"
    found, same = load_file(path), expected()
    assert found.keys() == same.keys()
    assert all(bool(same[name].any()) for name in same)
    for name, value in same.items():
        assert torch.equal(found[name], value), name


def numpy_version(environment: str) -> str:
    command = [python(environment), "-c", "import numpy; print(numpy.__version__)"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
