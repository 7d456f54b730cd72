"""Which way tensors take between agents follows from their devices, and from `device_tensors`."""

from typing import Any

import pytest
from mora_launch.config.device_tensors import device_pool_nbytes, tensor_ways
from mora_launch.config.train_config import TrainConfig
from mora_runtime.process.role import Role
from mora_runtime.schema import read_settings

POOL_NBYTES = 32 << 20


def config(devices: dict[str, list[str]], **changes: Any) -> TrainConfig:
    content: dict[str, Any] = {
        "clip": {"num_frames": 5, "height": 32, "width": 32, "fps": 8},
        "agents": {
            name: {"environment": "sd3", "kind": "sd3", "devices": each} for name, each in devices.items()
        },
        "device_pool_nbytes": POOL_NBYTES,
        **changes,
    }  # fmt: skip
    return read_settings(TrainConfig, content, source="the test")


@pytest.mark.parametrize(
    ("first", "second", "is_on", "expected"),
    [
        ("cpu", "cpu", True, "shared"), ("cpu", "cuda:0", True, "staged"), ("cuda:1", "cpu", True, "staged"),
        ("cuda:0", "cuda:0", False, "staged"), ("cuda:0", "cuda:4", False, "staged"),
        ("cuda:0", "cuda:0", True, "device"), ("cuda:0", "cuda:4", True, "device"),
    ],
)  # fmt: skip
def test_the_way_follows_from_both_devices(first: str, second: str, is_on: bool, expected: str) -> None:
    (way,) = tensor_ways(config({"a": [first], "b": [second]}, device_tensors=is_on))
    assert (way.first, way.second, way.way) == ("a.0", "b.0", expected)


def test_it_is_off_by_default() -> None:
    assert tensor_ways(config({"a": ["cuda:0"], "b": ["cuda:0"]}))[0].way == "staged"


def test_every_replica_and_pair_has_its_own_way() -> None:
    made = config(
        {"a": ["cuda:0", "cuda:1"], "b": ["cuda:0", "cuda:2"], "c": ["cpu"]},
        device_tensors=True, replicas=2, training={"batch_size": 2},
    )  # fmt: skip
    assert [str(way).partition(",")[0] for way in tensor_ways(made)] == [
        "a.0 <-> b.0: device (both on cuda:0", "b.0 <-> c.0: staged (one is on the CPU)",
        "a.1 <-> b.1: device (cuda:1 and cuda:2", "b.1 <-> c.1: staged (one is on the CPU)",
    ]  # fmt: skip


def test_only_servers_with_a_neighbour_on_a_gpu_get_a_pool() -> None:
    made = config({"a": ["cuda:0"], "b": ["cuda:1"], "c": ["cpu"], "d": ["cuda:2"]}, device_tensors=True)
    assert {name: device_pool_nbytes(made, Role.of(name, 0)) for name in "abcd"} == {
        "a": POOL_NBYTES, "b": POOL_NBYTES, "c": 0, "d": 0,
    }  # fmt: skip
    off = made.model_copy(update={"device_tensors": False})
    assert {device_pool_nbytes(off, Role.of(name, 0)) for name in "abcd"} == {0}


def test_an_agent_outside_of_the_chain_gets_no_pool() -> None:
    made = config({"a": ["cuda:0"], "b": ["cuda:0"], "other": ["cuda:0"]}, device_tensors=True, chain=["a", "b"])
    assert device_pool_nbytes(made, Role.of("other", 0)) == 0
