"""The check of a real server: the package's own `serve` command, called over the wire."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from mora_runtime import SpawnedServer, spawn
from mora_runtime.errors import BadArgument, MoraError, UnknownMethod
from mora_runtime.rpc.agent import methods_of

from mora_environment.conformance.outcome import CheckFailed, expect
from mora_environment.conformance.subject import Subject
from mora_environment.promised_methods import Promise, promises_of

_AGENT = "checked"
_UNKNOWN_KEY = "0123456789abcdef" * 4
_TOLERANCE = 1e-4
# Runs the package's command with the settings that `spawn` wrote, and the agent that the check adds to them.
_SCRIPT = """
import json, runpy, sys
at = sys.argv.index("--settings") + 1
with open(sys.argv[at], encoding="utf-8") as file:
    settings = json.load(file)
with open({agents!r}, encoding="utf-8") as file:
    settings["agents"] = json.load(file)
sys.argv[at] += ".checked"
with open(sys.argv[at], "w", encoding="utf-8") as file:
    json.dump(settings, file)
runpy.run_module({package!r}, run_name="__main__", alter_sys=True)
"""


def errors_cross_a_server(subject: Subject) -> str:
    """Wrong arguments come back as the caller's error, and the server then answers the next call."""
    with tempfile.TemporaryDirectory(prefix="mora-check-") as folder, _server(subject, Path(folder)) as server:
        number = _refuses_wrong_types(subject, server)
        number += sum(_refuses_wrong_batches(subject, server, promise) for promise in promises_of(subject.interface))
        _answers(subject, server)
    return f"{number} wrong calls"


def _server(subject: Subject, folder: Path) -> SpawnedServer:
    agents, script = folder / "agents.json", folder / "server.py"
    agents.write_text(json.dumps({_AGENT: {"kind": subject.name, "options": subject.content}}), encoding="utf-8")
    script.write_text(_SCRIPT.format(agents=str(agents), package=subject.package), encoding="utf-8")
    path = os.pathsep.join([_root(subject.package), *filter(None, [os.environ.get("PYTHONPATH")])])
    return spawn(sys.executable, script, variables={"PYTHONPATH": path})


def _root(package: str) -> str:
    """The folder that contains the package, which need not be installed."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise CheckFailed(f"expected a package named `{package}` with a module `__main__`, found none")
    folder = Path(next(iter(found.submodule_search_locations))).absolute()
    return str(folder.parents[package.count(".")])


def _refuses_wrong_types(subject: Subject, server: SpawnedServer) -> int:
    _expect_error(server, UnknownMethod, "no_such_method", {})
    methods = [each for each in methods_of(type(subject.agent)).values() if each.required]
    for method in methods:
        _expect_error(server, BadArgument, method.name, {})
        for name in method.arguments:
            _expect_error(server, BadArgument, method.name, {name: [[]]})
    return 1 + sum(1 + len(method.arguments) for method in methods)


def _refuses_wrong_batches(subject: Subject, server: SpawnedServer, promise: Promise) -> int:
    """Fewer seeds than prompts, and keys that the agent has never given out."""
    wrong: list[dict[str, Any]] = []
    if {"seeds", "prompt_keys"} <= set(promise.arguments):
        wrong.append({"seeds": [1]})
        if subject.interface.has_text:
            wrong.append({"prompt_keys": [_UNKNOWN_KEY] * 2})
        if "target_keys" in promise.arguments:
            wrong.append({"target_keys": [_UNKNOWN_KEY] * 2})
    for changes in wrong:
        _expect_error(server, BadArgument, promise.method, {**_arguments(subject, server, promise), **changes})
    return len(wrong)


def _arguments(subject: Subject, server: SpawnedServer, promise: Promise) -> dict[str, Any]:
    """Right arguments; encodes the prompts and stores the targets in the server too, where keys are the same."""
    if "prompt_keys" in promise.arguments and subject.interface.has_text:
        encode = next(each for each in promises_of(subject.interface) if each.method == "encode")
        server.call(_AGENT, "encode", **subject.arguments(encode))
    if "target_keys" in promise.arguments:
        for sample in (0, 1):
            server.call(_AGENT, "store_target", pixels=subject.clip(sample))
    return subject.arguments(promise)


def _expect_error(server: SpawnedServer, expected: type[MoraError], method: str, arguments: dict[str, Any]) -> None:
    shown = f"{method}({', '.join(arguments)})"
    try:
        server.call(_AGENT, method, **arguments)
    except expected:
        return
    except MoraError as error:
        raise CheckFailed(
            f"{shown} with a wrong argument: expected {expected.__name__}, got {type(error).__name__}: {error}"
        ) from error
    raise CheckFailed(f"{shown} with a wrong argument: expected {expected.__name__}, got an answer")


def _answers(subject: Subject, server: SpawnedServer) -> None:
    """After the errors, right calls give what the same calls give in this process."""
    for promise in promises_of(subject.interface):
        if promise.method not in ("forward", "loss", "generate", "score", "measure"):
            continue
        arguments = _arguments(subject, server, promise)
        returned = subject.call(promise, arguments)
        reply = server.call(_AGENT, promise.method, **arguments)
        for name, value in returned.items():
            if isinstance(value, torch.Tensor):
                reference: Any = reply.values[name]
                found = reference.tensor()
                distance = float((found.double() - value.double()).abs().max())
                limit = 1 if value.dtype == torch.uint8 else _TOLERANCE
                expect(distance <= limit, f"{promise.method}: {name} from the server differs by {distance:.3g}")
            elif isinstance(value, float):
                distance = abs(float(reply.values[name]) - value)
                expect(distance <= _TOLERANCE, f"{promise.method}: {name} from the server differs by {distance:.3g}")
