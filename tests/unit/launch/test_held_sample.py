"""A picture goes from server to server by reference where the front does not change it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from mora_launch.checkpoints.adapter_catalog import AdapterCatalog
from mora_launch.serving.counters import Counters
from mora_launch.serving.feeding.held_sample import HeldSample
from mora_launch.serving.feeding.server_adapters import ServerAdapters
from mora_launch.serving.feeding.server_worker import ServerWorker
from mora_launch.serving.work_queue import Work, WorkQueue
from mora_runtime import TensorRef
from mora_runtime.process.role import Role
from mora_runtime.process.run_directory import RunDirectory
from mora_runtime.wire.messages import Pong
from mora_runtime.wire.tensor_meta import meta_for


class LocalRef(TensorRef):
    """A reference to a tensor of this process."""

    def __init__(self, tensor: torch.Tensor) -> None:
        super().__init__(meta_for(tensor.dtype, tuple(tensor.shape)))
        self._tensor = tensor

    def row(self, index: int) -> TensorRef | None:
        return LocalRef(self._tensor[index : index + 1])

    def _view(self) -> torch.Tensor:
        return self._tensor


class OneCall:
    """A client that answers with the given tensor and records the arguments."""

    def __init__(self, outputs: torch.Tensor) -> None:
        self.outputs = outputs
        self.arguments: dict[str, Any] = {}

    def submit(self, agent: str, capability: str, arguments: dict[str, Any], *, parts: bool, deadline_s: float) -> Any:
        self.arguments = arguments
        return SimpleNamespace(
            has_ended=True, result=lambda: SimpleNamespace(values={"outputs": LocalRef(self.outputs)})
        )

    def ping(self, deadline_s: float) -> Any:
        return SimpleNamespace(_asdict=lambda: dict.fromkeys(Pong._fields, 0))

    def flush(self) -> None:
        pass


class OneBatch(WorkQueue):
    """Ends the worker once its work is done."""

    worker: ServerWorker

    def take(self, capabilities: Any, *, timeout_s: float, only_full: bool = False) -> list[Work]:
        if timeout_s > 0 and not len(self):
            self.worker.end()
        return super().take(capabilities, timeout_s=0.0, only_full=only_full)


def called(folder: Path, agent: str, works: list[Work], outputs: torch.Tensor) -> dict[str, Any]:
    """Let the worker of an agent do work in one batch; return the arguments of the call."""
    queue, client = OneBatch({works[0].capability: 4}), OneCall(outputs)
    for work in works:
        queue.put(work)
    with RunDirectory.create(folder / agent) as directory:
        queue.worker = ServerWorker(
            Role(f"{agent}.0"), directory, queue, Counters(), allowed=[works[0].capability],
            adapters=ServerAdapters(agent, AdapterCatalog(), None), arena_nbytes=1 << 20, deadline_s=5.0,
        )  # fmt: skip
        queue.worker.capabilities = (works[0].capability,)
        queue.worker._serve(client)  # type: ignore[arg-type]
    return client.arguments


def pictures(count: int) -> torch.Tensor:
    return torch.arange(count * 8 * 8 * 3, dtype=torch.int64).remainder(251).to(torch.uint8).reshape(count, 8, 8, 3)


def held(index: int, role: str = "image.0") -> HeldSample:
    row = LocalRef(pictures(4)).row(index)
    assert row is not None
    return HeldSample(row, Role(role))


def animated(held_pictures: list[HeldSample]) -> list[Work]:
    return [Work("image_to_video", {"prompts": "a", "seeds": 1, "images": each}, {}) for each in held_pictures]


def test_pictures_that_may_stay_in_their_server_do(tmp_path: Path) -> None:
    works = [Work("text_to_image", {"prompts": "a", "seeds": seed}, {}, is_held=True) for seed in range(3)]
    called(tmp_path, "image", works, pictures(3))
    for index, work in enumerate(works):
        made = work.future.result(0)
        assert isinstance(made, HeldSample)
        assert made.shape == (8, 8, 3)
        assert np.array_equal(made.pixels(), pictures(3)[index])
        assert not made.pixels().flags.writeable


def test_a_batch_that_the_front_must_read_is_copied(tmp_path: Path) -> None:
    works = [Work("text_to_image", {"prompts": "a", "seeds": n}, {}, is_held=n > 0) for n in range(2)]
    called(tmp_path, "image", works, pictures(2))
    assert [type(work.future.result(0)) for work in works] == [np.ndarray, np.ndarray]


def test_a_single_picture_is_passed_on_to_another_agent_as_it_is(tmp_path: Path) -> None:
    picture = held(2)
    arguments = called(tmp_path, "video", animated([picture]), torch.zeros(1, 2, 8, 8, 3, dtype=torch.uint8))
    assert arguments["images"] is picture.row


def test_pictures_of_a_batch_and_those_of_the_same_agent_are_copied(tmp_path: Path) -> None:
    for folder, made in (("batch", [held(0), held(3)]), ("own", [held(1, "video.0")])):
        outputs = torch.zeros(len(made), 2, 8, 8, 3, dtype=torch.uint8)
        arguments = called(tmp_path / folder, "video", animated(made), outputs)
        assert torch.equal(arguments["images"], torch.stack([torch.from_numpy(each.pixels().copy()) for each in made]))
