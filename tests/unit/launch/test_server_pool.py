"""The servers as their capabilities."""

from types import SimpleNamespace
from typing import Any

import pytest
from mora_launch.serving.counters import Counters
from mora_launch.serving.server_pool import ServerPool
from mora_launch.serving.work_queue import WorkQueue
from mora_runtime.errors import RoleFailed


def worker(agent: str, *capabilities: str) -> Any:
    """One that has connected already."""
    return SimpleNamespace(
        role=f"{agent}.0", agent=agent, capabilities=capabilities, description={"model": agent},
        start=lambda: None, wait_connected=lambda _: True,
    )  # fmt: skip


def pool(*workers: Any, **promised: list[str]) -> ServerPool:
    return ServerPool(workers, WorkQueue({}), Counters(), promised)


def test_who_asks_names_an_ability_and_not_an_agent() -> None:
    made = pool(worker("image", "text_to_image"), worker("connector", "connect_videos"), connector=["connect_videos"])
    made.start(1.0)
    assert made.capabilities() == ["text_to_image", "connect_videos"]
    assert made.describe("connect_videos") == {"agent": "connector", "model": "connector"}
    with pytest.raises(RoleFailed, match="no server has the capability extend_video; the configured servers have text_to_image, conn"):
        made.describe("extend_video")


def test_an_agent_without_what_the_configuration_says_it_can_do_is_refused() -> None:
    made = pool(worker("connector", "connect_videos"), connector=["connect_videos", "text_to_image"])
    with pytest.raises(RoleFailed, match=r"serving.agents.connector.capabilities: its model has no text_to_image"):
        made.start(1.0)
