"""A server on a GPU sets torch's kernels as its settings say; on the CPU nothing is touched. Nothing needs a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from mora_runtime import ServerSettings
from mora_runtime.rpc import gpu_kernels
from mora_runtime.rpc.gpu_kernels import choose_kernels
from torch.nn.attention import SDPBackend


def settings(**changes: Any) -> ServerSettings:
    return ServerSettings(**{"role": "a.0", "name": "a", "run_dir": ".", "device": "cuda:0", **changes})


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What torch is told, by name."""
    told: dict[str, Any] = {}

    @contextlib.contextmanager
    def sdpa_kernel(kernels: list[SDPBackend], set_priority: bool = False) -> Iterator[None]:
        told.update(kernels=kernels, set_priority=set_priority)
        yield
        told["ended"] = True

    monkeypatch.setattr(gpu_kernels, "sdpa_kernel", sdpa_kernel)
    monkeypatch.setattr(gpu_kernels, "_CAN_ORDER", True)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda value: told.update(products=value))
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    return told


def test_attention_has_the_stated_order_while_the_server_runs(chosen: dict[str, Any]) -> None:
    with choose_kernels(settings()):
        order = [
            SDPBackend.CUDNN_ATTENTION,
            SDPBackend.FLASH_ATTENTION,
            SDPBackend.EFFICIENT_ATTENTION,
            SDPBackend.MATH,
        ]
        assert chosen["kernels"] == order
        assert chosen["set_priority"]
        assert "ended" not in chosen
    assert chosen["ended"]


def test_attention_can_be_set(chosen: dict[str, Any]) -> None:
    choose_kernels(settings(attention=("flash", "math"))).__enter__()
    assert chosen["kernels"] == [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]


def test_before_torch_can_order_kernels_it_chooses_among_them(
    chosen: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_kernels, "_CAN_ORDER", False)
    choose_kernels(settings()).__enter__()
    assert len(chosen["kernels"]) == 4
    assert not chosen["set_priority"]


@pytest.mark.skipif(not gpu_kernels._CAN_ORDER, reason="this version of torch cannot order kernels")
def test_torch_takes_the_order() -> None:
    current = torch.nn.attention._cur_sdpa_kernel_backends
    before = current(with_priority=True)
    with choose_kernels(settings(attention=("math", "cudnn"))):
        assert current(with_priority=True)[:2] == [SDPBackend.MATH, SDPBackend.CUDNN_ATTENTION]
    assert current(with_priority=True) == before


@pytest.mark.parametrize(
    ("tf32", "convolutions", "products"),
    [("none", False, "highest"), ("convolutions", True, "highest"), ("all", True, "high")],
)
def test_tf32_is_used_where_the_setting_says(
    chosen: dict[str, Any], tf32: str, convolutions: bool, products: str
) -> None:
    choose_kernels(settings(tf32=tf32))
    assert torch.backends.cudnn.allow_tf32 is convolutions
    assert chosen["products"] == products


@pytest.mark.parametrize("searches", [False, True])
def test_cudnn_searches_for_algorithms_where_the_setting_says(chosen: dict[str, Any], searches: bool) -> None:
    choose_kernels(settings(cudnn_benchmark=searches))
    assert torch.backends.cudnn.benchmark is searches


def test_on_the_cpu_nothing_is_set(chosen: dict[str, Any]) -> None:
    with choose_kernels(settings(device="cpu", attention=("flash",), tf32="all", cudnn_benchmark=True)):
        assert chosen == {}
        assert not torch.backends.cudnn.benchmark
