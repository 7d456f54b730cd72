"""The pool offers servers by their capabilities."""

from types import SimpleNamespace
from typing import Any

import pytest
from mora_launch.serving.counters import Counters
from mora_launch.serving.server_pool import ServerPool
from mora_launch.serving.work_queue import WorkQueue
from mora_runtime.errors import RoleFailed


def worker(agent: str, *capabilities: str) -> Any:
    """A server that is already connected."""
    made = SimpleNamespace(
        role=f"{agent}.0", agent=agent, capabilities=capabilities, description={"model": agent},
        start=lambda: None, wait_connected=lambda _: True,
    )  # fmt: skip

    def leave(others: set[str]) -> None:
        made.capabilities = tuple(name for name in made.capabilities if name not in others)

    made.leave = leave
    return made


def pool(*workers: Any, **promised: list[str]) -> ServerPool:
    return ServerPool(workers, WorkQueue({}), Counters(), promised)


def test_callers_name_a_capability_and_not_an_agent() -> None:
    made = pool(worker("image", "text_to_image"), worker("connector", "connect_videos"), connector=["connect_videos"])
    made.start(1.0)
    assert made.capabilities() == ["text_to_image", "connect_videos"]
    assert made.describe("connect_videos") == {"agent": "connector", "model": "connector"}
    with pytest.raises(RoleFailed, match="the configured servers have text_to_image, conn"):
        made.describe("extend_video")


def test_of_two_agents_with_a_capability_the_first_one_serves_it() -> None:
    first, second = worker("image", "text_to_image", "image_to_image"), worker("refine", "image_to_image")
    made = pool(first, second)
    made.start(1.0)
    assert made.describe("image_to_image")["agent"] == "image"
    assert second.capabilities == ()


def test_an_agent_without_its_configured_capability_is_refused() -> None:
    made = pool(worker("connector", "connect_videos"), connector=["connect_videos", "text_to_image"])
    with pytest.raises(RoleFailed, match=r"connector: its `capabilities` name text_to_image, which its model"):
        made.start(1.0)


def test_samples_that_are_taken_back_are_counted_apart() -> None:
    made = pool(worker("image", "text_to_image"))
    made.start(1.0)
    first, second = (made.submit("text_to_image", {"prompts": "a", "seeds": seed}, {}) for seed in (1, 2))
    first.cancel()
    first.cancel()
    second.finish("a picture")
    count = made.counters.registry.get_sample_value("mora_cancelled_total", {"capability": "text_to_image"})
    assert count == 1
