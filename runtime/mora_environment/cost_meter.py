"""Counts memory and floating-point operations of real code that runs on the meta device, where nothing is computed.

So a plan comes from the code that will run, at the sizes that it will have, without weights and without a GPU.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from mora_environment.cost import AgentCost, CallCost, Work

_ATTENTION = ("_scaled_dot_product", "_flash_attention", "_efficient_attention")


class CostMeter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what runs inside it on the meta device.

    `live_nbytes` is the memory of the tensors made inside it that exist at the moment, `peak_nbytes` the most so far.
    Views share memory and count once. Workspaces of kernels are not counted.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live_nbytes = 0
        self.peak_nbytes = 0
        self.work: dict[str, int] = dict.fromkeys(Work.model_fields, 0)
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Iterable[Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        result = func(*args, **kwargs)
        made = [tensor for tensor in _tensors(result) if tensor.untyped_storage()._cdata not in given]
        if made or func._schema.is_mutable:  # not a view
            self._count_work(func, args, kwargs, result)
        for tensor in made:
            self._count_memory(tensor.untyped_storage())
        return result

    def _count_memory(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._storages:
            return
        nbytes = storage.nbytes()

        def free(_: object) -> None:
            self.live_nbytes -= nbytes
            self._storages.pop(key, None)

        self._storages[key] = weakref.ref(storage, free)
        self.live_nbytes += nbytes
        self.peak_nbytes = max(self.peak_nbytes, self.live_nbytes)

    def _count_work(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        self.work["num_operations"] += 1
        count = flop_registry.get(func._overloadpacket)
        tensors = _tensors(result)
        if count is None:
            moved = sum(tensor.nbytes for tensor in _tensors((args, kwargs)))
            self.work["moved_nbytes"] += moved + sum(tensor.nbytes for tensor in tensors)
            return
        name = _class_of(func.__name__) + ("_float32" if tensors[0].dtype == torch.float32 else "")
        self.work[name] += int(count(*args, **kwargs, out_val=result))

    def taken_work(self) -> Work:
        """The work so far; counting starts again at zero."""
        work = Work(**self.work)
        self.work = dict.fromkeys(self.work, 0)
        return work


@contextmanager
def _with_fused_attention() -> Iterator[None]:
    """Have attention on the meta device use the fused kernels of a GPU, which keep no matrix of scores.

    A mode of torch would not do: it is off while a checkpointed block is recomputed.
    """
    unfused = F.scaled_dot_product_attention

    def attention(query: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return (_fused_attention if query.device.type == "meta" else unfused)(query, *args, **kwargs)

    F.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = unfused


def _fused_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **others: Any,
) -> torch.Tensor:
    if attn_mask is None and query.dtype != torch.float32 and query.shape[-1] <= 256:
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        mixed: torch.Tensor = flash(query, key, value, dropout_p, is_causal, False, scale=scale)[0]
        return mixed
    if attn_mask is not None:
        attn_mask = attn_mask.to(query.dtype).expand(*query.shape[:-1], key.shape[-2])
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    needs_gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value))
    mixed = efficient(query, key, value, attn_mask, needs_gradient, dropout_p, is_causal, scale=scale)[0]
    return mixed


@contextmanager
def without_weight_gradients(modules: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Free each gradient of a weight as soon as it exists, because the plan counts these gradients elsewhere."""

    def drop(parameter: torch.Tensor) -> None:
        parameter.grad = None

    handles = [
        parameter.register_post_accumulate_grad_hook(drop)  # type: ignore[no-untyped-call]
        for module in modules
        for parameter in module.parameters()
        if parameter.requires_grad
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def measured_call(
    call: Callable[[], torch.Tensor], *, modules: Iterable[torch.nn.Module] = (), with_backward: bool
) -> CallCost:
    """Run `call` on the meta device, and its backward pass if wanted; return what both cost.

    Args:
        call: returns the output.
        modules: their gradients do not count.
    """
    with CostMeter() as meter, _with_fused_attention(), torch.set_grad_enabled(with_backward):
        output = call()
        forward, forward_nbytes, graph_nbytes = meter.taken_work(), meter.peak_nbytes, meter.live_nbytes
        if not with_backward:
            return CallCost(forward=forward, forward_nbytes=forward_nbytes)
        meter.peak_nbytes = meter.live_nbytes
        with without_weight_gradients(modules):
            output.backward(torch.ones_like(output))  # type: ignore[no-untyped-call]
        return CallCost(
            forward=forward,
            backward=meter.taken_work(),
            forward_nbytes=forward_nbytes,
            graph_nbytes=graph_nbytes,
            backward_nbytes=meter.peak_nbytes,
        )


def with_trained_counts(cost: AgentCost, module: torch.nn.Module) -> AgentCost:
    """The cost with the numbers of parameters of `module` that have a gradient: all, and of the largest tensor."""
    sizes = [parameter.numel() for parameter in module.parameters() if parameter.requires_grad]
    return cost.model_copy(update={"num_trained": sum(sizes), "num_largest": max(sizes, default=0)})


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _class_of(operation: str) -> str:
    if operation.startswith(_ATTENTION):
        return "attention"
    return "convolution" if operation.startswith("conv") else "matmul"
