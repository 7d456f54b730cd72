"""A tensor over foreign memory shares that memory, and keeps its lease exactly as long as torch needs it."""

import ctypes
import gc
import subprocess
import sys
import threading
import weakref

import pytest
import torch
from mora_runtime.device.dlpack import _alive, tensor_over
from mora_runtime.wire.tensor_meta import DTYPES, meta_for

CPU = torch.device("cpu")


class Lease:
    """An object whose end can be observed."""


class Memory:
    """Bytes of our own, 64-byte aligned."""

    def __init__(self, nbytes: int = 4096) -> None:
        self.block = ctypes.create_string_buffer(nbytes + 64)
        self.address = (ctypes.addressof(self.block) + 63) // 64 * 64


def made(memory: Memory, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, object]:
    lease = Lease()
    return tensor_over(memory.address, meta_for(dtype, shape), CPU, lease), weakref.ref(lease)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_tensor_is_the_memory(dtype: torch.dtype) -> None:
    memory = Memory()
    tensor, _ = made(memory, (2, 3, 4), dtype)
    assert (tensor.dtype, tensor.shape, tensor.data_ptr()) == (dtype, (2, 3, 4), memory.address)
    assert tensor.is_contiguous()
    tensor.fill_(1)
    expected = torch.ones(2, 3, 4, dtype=dtype).view(torch.uint8).numpy().tobytes()
    assert ctypes.string_at(memory.address, len(expected)) == expected


def test_a_scalar_and_an_empty_tensor_keep_their_shapes() -> None:
    memory = Memory()
    assert made(memory, ())[0].fill_(5).item() == 5
    empty, lease = made(memory, (0, 7))
    assert empty.shape == (0, 7)
    assert lease() is None, "there are no bytes to hold"


def test_the_lease_ends_with_the_last_view_and_not_before() -> None:
    memory = Memory()
    tensor, lease = made(memory, (16,))
    part = tensor[3:5]
    storage = part.untyped_storage()
    del tensor, part
    assert lease() is not None, "the storage is still held"
    del storage
    assert lease() is None
    assert _alive == {}


def test_an_autograd_graph_keeps_the_lease_alive() -> None:
    memory = Memory()
    factor, lease = made(memory, (8,))
    factor.fill_(3.0)
    weight = torch.ones(8, requires_grad=True)
    loss = (weight * factor).sum()
    del factor
    gc.collect()
    assert lease() is not None, "backward needs the factor"
    loss.backward()
    assert lease() is None, "the graph was freed by backward"
    assert torch.equal(weight.grad, torch.full((8,), 3.0))


def test_the_last_view_may_die_in_another_thread() -> None:
    memory = Memory()
    tensor, lease = made(memory, (8,))
    held = [tensor]
    del tensor
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join(10)
    assert lease() is None


def test_views_of_two_slots_do_not_share_a_version_counter() -> None:
    memory = Memory()
    first, second = made(memory, (8,))[0], made(memory, (8,))[0]
    before = first._version
    second.fill_(1)
    assert first._version == before


def test_a_tensor_that_is_alive_at_exit_does_not_crash_the_process() -> None:
    script = (
        "import ctypes, sys, torch\n"
        "from mora_runtime.device.dlpack import tensor_over\n"
        "from mora_runtime.wire.tensor_meta import meta_for\n"
        "block = ctypes.create_string_buffer(4096)\n"
        "made = lambda: tensor_over(ctypes.addressof(block), meta_for(torch.uint8, (64,)), torch.device('cpu'), [])\n"
        "kept = made(); cycle = [made()]; cycle.append(cycle); torch.kept = made(); sys.kept = made()\n"
        "import atexit; atexit.register(lambda kept=made(): None)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
