"""Shared memory and cores are divided so that no two roles get the same."""

from pathlib import Path
from typing import Any

import pytest
from mora_launch.config.train_config import TrainConfig, load_config
from mora_launch.jobs import resources
from mora_launch.jobs.cuda_driver import Gpu
from mora_launch.jobs.resources import available_cores, divide_memory, near_cores, pin_cores, role_names
from mora_runtime.errors import PlacementError
from mora_runtime.process.role import Role

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


@pytest.fixture
def two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Gpu]:
    """Two GPUs of a machine with two memory nodes of four cores, the first GPU on the second node."""
    for node, cores in enumerate(("0-3", "4-7")):
        (tmp_path / f"node{node}").mkdir()
        (tmp_path / f"node{node}" / "cpulist").write_text(f"{cores}\n")
    for bus_id, node in (("0000:c1:00.0", 1), ("0000:1b:00.0", 0)):
        (tmp_path / bus_id).mkdir()
        (tmp_path / bus_id / "numa_node").write_text(f"{node}\n")
    monkeypatch.setattr(resources, "_NODES", tmp_path)
    monkeypatch.setattr(resources, "_PCI_DEVICES", tmp_path)
    monkeypatch.setattr(resources.os, "sched_getaffinity", lambda process: set(range(7)))
    return [Gpu("a GPU", 80 << 30, "0000:C1:00.0"), Gpu("a GPU", 80 << 30, "0000:1B:00.0")]


def test_servers_on_gpus_get_the_cores_at_their_gpu(two_nodes: list[Gpu]) -> None:
    both = config(agents__image__devices="[cuda:0]", agents__video__devices="[cuda:1]")
    assert near_cores(both, two_nodes, {}) == {"image.0": (4, 5, 6), "video.0": (0, 1, 2, 3)}
    shared = config(agents__image__devices="[cuda:0]", agents__video__devices="[cuda:0]")
    assert near_cores(shared, two_nodes, {}) == {"image.0": (4, 5, 6), "video.0": (4, 5, 6)}
    assert near_cores(config(agents__image__devices="[cuda:0]", pin_cores="false"), two_nodes, {}) == {}


def test_cores_of_a_cpu_server_are_not_given_to_a_gpu_server(two_nodes: list[Gpu]) -> None:
    mixed = config(agents__image__devices="[cuda:0]")
    assert near_cores(mixed, two_nodes, {Role.of("video", 0): (4, 5)}) == {"image.0": (6,)}


def test_a_gpu_that_tells_no_memory_node_leaves_its_server_on_all_cores(two_nodes: list[Gpu], tmp_path: Path) -> None:
    (tmp_path / "0000:c1:00.0" / "numa_node").write_text("-1\n")
    assert near_cores(config(agents__image__devices="[cuda:0]"), two_nodes, {}) == {}
    elsewhere = [Gpu("a GPU", 80 << 30, "0000:FF:00.0")]
    assert near_cores(config(agents__image__devices="[cuda:0]"), elsewhere, {}) == {}


def test_the_cores_of_this_machine_are_those_this_process_may_use() -> None:
    found = [core for cores in available_cores() for core in cores]
    assert found
    assert len(set(found)) == len(found)
