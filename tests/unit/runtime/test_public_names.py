"""The public names of `mora_runtime`, and the cost of importing it."""

import subprocess
import sys

import mora_runtime
import pytest

PUBLIC = [
    "Agent",
    "Client",
    "GraphHandle",
    "ModuleAgent",
    "MoraError",
    "PendingBackward",
    "PendingReply",
    "RemoteModule",
    "Reply",
    "RunDirectory",
    "ServerSettings",
    "Session",
    "SpawnedServer",
    "TensorRef",
    "cancelled_samples",
    "check_cancelled",
    "empty",
    "host",
    "remote",
    "report_part",
    "report_step",
    "serve",
    "spawn",
    "wait_any",
]


def test_the_public_names_are_pinned() -> None:
    assert mora_runtime.__all__ == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_exists_and_is_defined_by_this_package(name: str) -> None:
    assert getattr(mora_runtime, name).__module__.startswith("mora_runtime.")


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'pickle'"):
        mora_runtime.pickle  # noqa: B018


def test_a_command_line_needs_no_torch() -> None:
    script = (
        "import sys, mora_runtime, mora_runtime.errors, mora_runtime.process.run_directory\n"
        "import mora_runtime.process.supervisor_link\n"
        "import mora_runtime.schema, mora_runtime.limits, mora_runtime.process.envvars\n"
        "mora_runtime.MoraError, mora_runtime.RunDirectory\n"
        "print(sorted({'torch', 'zmq', 'numpy', 'safetensors'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout == "[]\n"
