"""The feeder of a server asks for adapters only when a call has others, and no call counts that had the wrong ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mora_launch.checkpoints.adapter_catalog import AdapterCatalog, NamedAdapters
from mora_launch.serving.feeding.server_adapters import ServerAdapters
from mora_launch.serving.terms import LoraChoice
from mora_runtime.errors import AgentFailed

INK, OIL = LoraChoice(name="ink"), LoraChoice(name="oil", scale=0.5)


class AdapterServer:
    """A client of a server with an agent for adapters, if `names` are given."""

    def __init__(self, *names: str) -> None:
        self.welcome = SimpleNamespace(agents={"image": [], **({"adapters": []} if names else {})})
        self.names = list(names)
        self.asked: list[tuple[str | None, float]] = []
        self.error: AgentFailed | None = None

    def call(self, agent: str, method: str, arguments: dict[str, Any], *, deadline_s: float) -> Any:
        assert (agent, method) == ("adapters", "choices")
        return SimpleNamespace(values={"names": self.names, "unfit": []})

    def submit(self, agent: str, method: str, arguments: dict[str, Any], *, deadline_s: float) -> Any:
        assert (agent, method) == ("adapters", "use")
        self.asked.append((arguments["name"], arguments["scale"]))
        error = self.error

        def result() -> None:
            if error is not None:
                raise error

        return SimpleNamespace(result=result)


def connected(server: Any, catalog: AdapterCatalog | None = None, modulation: Any = None) -> ServerAdapters:
    made = ServerAdapters("image", catalog or AdapterCatalog(), modulation)
    made.connect(server, 1.0)
    return made


def test_a_server_without_adapters_is_asked_nothing_after_a_failed_call_either() -> None:
    server: Any = AdapterServer()
    adapters = connected(server)
    adapters.doubt()
    assert adapters.change_to(server, None, 1.0) is None
    assert (adapters.names, server.asked) == ([], [])


def test_adapters_are_asked_for_when_they_or_their_scale_change() -> None:
    server: Any = AdapterServer("ink", "oil")
    adapters = connected(server)
    for lora in (None, INK, INK, OIL, OIL.model_copy(update={"scale": 1.0}), None, None):
        adapters.change_to(server, lora, 1.0)
    assert server.asked == [("ink", 1.0), ("oil", 0.5), ("oil", 1.0), (None, 1.0)]


def test_a_server_that_was_started_again_has_no_adapters_on() -> None:
    server: Any = AdapterServer("ink")
    adapters = connected(server)
    adapters.change_to(server, INK, 1.0)
    adapters.connect(server, 1.0)
    adapters.change_to(server, INK, 1.0)
    assert server.asked == [("ink", 1.0)] * 2


def test_every_call_after_a_failed_change_fails_until_it_is_made_again() -> None:
    server: Any = AdapterServer("ink")
    adapters = connected(server)
    server.error = AgentFailed("out of memory")
    changes = [adapters.change_to(server, INK, 1.0) for _ in range(2)]
    for change in changes:
        assert change is not None
        with pytest.raises(AgentFailed, match="out of memory"):
            change.check()
    adapters.doubt()
    server.error = None
    again = adapters.change_to(server, INK, 1.0)
    assert again is not None
    again.check()
    assert server.asked == [("ink", 1.0)] * 2


def test_z_of_a_run_goes_with_its_adapters() -> None:
    run: Any = SimpleNamespace(read_embeddings=lambda: {"image": np.full(2, 7.0)})
    bare: Any = SimpleNamespace(read_embeddings=dict)
    some_file: Any = SimpleNamespace(sha256="")
    entries = {
        "run": NamedAdapters("run", "a run", {"image": some_file}, run=run),
        "bare": NamedAdapters("bare", "a run without z", {"image": some_file}, run=bare),
        "folder": NamedAdapters("folder", "a folder", {"image": some_file}),
    }
    adapters = connected(AdapterServer(), AdapterCatalog(entries), modulation=np.ones(2))
    found = {name: adapters.modulation(LoraChoice(name=name)) for name in entries}
    assert found["run"].tolist() == [7.0, 7.0]
    assert found["bare"] is None
    assert found["folder"].tolist() == adapters.modulation(None).tolist() == [1.0, 1.0]
