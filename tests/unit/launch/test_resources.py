"""Shared memory and cores are divided so that no two roles get the same."""

from pathlib import Path
from typing import Any

import pytest
from mora_launch.config.train_config import TrainConfig, load_config
from mora_launch.jobs.resources import available_cores, divide_memory, pin_cores, role_names
from mora_runtime.errors import PlacementError

TINY = Path(__file__).parents[3] / "configs" / "tiny.yaml"


def config(**changes: Any) -> TrainConfig:
    return load_config(TINY, [f"{key.replace('__', '.')}={value}" for key, value in changes.items()])


def test_roles_share_the_memory_that_is_not_assigned_by_name_equally() -> None:
    shares = divide_memory(config(shared_memory_nbytes=900 << 20))
    assert shares == {"image.0": 300 << 20, "video.0": 300 << 20, "coordinator.0": 300 << 20}
    named = divide_memory(config(shared_memory_nbytes=900 << 20, agents__video__arena_nbytes=700 << 20))
    assert named == {"image.0": 100 << 20, "video.0": 700 << 20, "coordinator.0": 100 << 20}


def test_replicas_also_share() -> None:
    two = config(replicas=2, shared_memory_nbytes=600 << 20)
    assert divide_memory(two) == dict.fromkeys(role_names(two), 100 << 20)


def test_too_little_memory_is_refused_with_what_to_change() -> None:
    with pytest.raises(PlacementError, match=r"leaves 1048576 bytes for each of 3 roles, .* raise it, or lower"):
        divide_memory(config(shared_memory_nbytes=3 << 20))


def test_servers_on_the_cpu_get_cores_that_no_other_has() -> None:
    assert pin_cores(config(), [[0, 1]]) == {"image.0": (0,), "video.0": (1,)}
    wide = config(agents__video__num_threads=3)
    assert pin_cores(wide, [[0, 1], [2, 3, 4]]) == {"image.0": (0,), "video.0": (2, 3, 4)}, "of one memory node"
    assert pin_cores(config(agents__video__num_threads=3), [[0, 1], [2, 3]]) == {"image.0": (0,), "video.0": (1, 2, 3)}


def test_without_cores_for_all_no_server_is_pinned() -> None:
    assert pin_cores(config(), [[0]]) == {}
    assert pin_cores(config(replicas=2), [[0, 1, 2]]) == {}
    assert pin_cores(config(pin_cores="false"), [[0, 1]]) == {}


def test_servers_on_gpus_are_not_pinned() -> None:
    assert pin_cores(config(agents__image__devices="[cuda:0]"), [[0, 1]]) == {"video.0": (0,)}


def test_the_cores_of_this_machine_are_those_this_process_may_use() -> None:
    found = [core for cores in available_cores() for core in cores]
    assert found
    assert len(set(found)) == len(found)
