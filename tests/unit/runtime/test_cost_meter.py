"""What the meter counts on the meta device equals what can be computed by hand."""

from __future__ import annotations

import torch
from mora_environment.cost import AgentCost, CallCost, Work, in_sequence
from mora_environment.cost_meter import CostMeter, measured_call, with_trained_counts
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

ROWS, WIDTH, DEPTH = 256, 64, 4
TENSOR_NBYTES = ROWS * WIDTH * 4
MATMUL = 2 * ROWS * WIDTH * WIDTH


def layers(dtype: torch.dtype = torch.float32) -> nn.ModuleList:
    with torch.device("meta"):
        return nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False, dtype=dtype) for _ in range(DEPTH))


def made(*shape: int, dtype: torch.dtype = torch.float32, requires_grad: bool = False) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta", requires_grad=requires_grad)


def run(stack: nn.ModuleList, x: torch.Tensor, *, recompute: bool = False) -> torch.Tensor:
    for layer in stack:
        step = lambda y, layer=layer: layer(y).sigmoid()  # noqa: E731
        x = checkpoint(step, x, use_reentrant=False) if recompute else step(x)
    return x.sum()


def test_operations_of_both_passes_are_those_of_the_matrices() -> None:
    stack, x = layers(), made(ROWS, WIDTH, requires_grad=True)
    cost = measured_call(lambda: run(stack, x), modules=[stack], with_backward=True)
    assert cost.forward.matmul_float32 == DEPTH * MATMUL
    assert cost.backward.matmul_float32 == 2 * DEPTH * MATMUL, "for the inputs and for the weights"
    assert cost.forward.matmul == cost.forward.attention == cost.forward.convolution == 0


def test_recomputation_adds_one_forward_to_the_backward_pass() -> None:
    stack, x = layers(), made(ROWS, WIDTH, requires_grad=True)
    cost = measured_call(lambda: run(stack, x, recompute=True), modules=[stack], with_backward=True)
    assert cost.backward.matmul_float32 == 3 * DEPTH * MATMUL


def test_the_graph_keeps_one_tensor_of_each_layer_and_recomputation_only_the_inputs() -> None:
    stack, x = layers(), made(ROWS, WIDTH, requires_grad=True)
    whole = measured_call(lambda: run(stack, x), with_backward=True)
    assert whole.graph_nbytes == DEPTH * TENSOR_NBYTES + 4, "what sigmoid returned, and the sum"
    inputs = measured_call(lambda: run(stack, x, recompute=True), with_backward=True)
    assert inputs.graph_nbytes == (DEPTH - 1) * TENSOR_NBYTES + 4, "inputs of later layers; the first is given"
    assert whole.forward_nbytes == whole.graph_nbytes + TENSOR_NBYTES - 4, "what the last matrix returned"


def test_gradients_of_weights_are_not_counted() -> None:
    stack, x = layers(), made(1, WIDTH, requires_grad=True)
    cost = measured_call(lambda: run(stack, x), modules=[stack], with_backward=True)
    weights = WIDTH * WIDTH * 4
    assert cost.backward_nbytes < 2 * weights, "at most one gradient of a weight is alive"
    assert all(parameter.grad is None for parameter in stack.parameters())


def test_attention_keeps_no_matrix_of_scores() -> None:
    tokens = 4096
    qkv = [made(1, 2, tokens, 64, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    cost = measured_call(lambda: F.scaled_dot_product_attention(*qkv).sum(), with_backward=True)
    scores = 2 * tokens * tokens * 2
    assert cost.backward_nbytes < scores / 4
    assert cost.forward.attention == 4 * 2 * tokens * tokens * 64
    masked = measured_call(
        lambda: F.scaled_dot_product_attention(*qkv, attn_mask=made(1, 1, tokens, tokens)).sum(), with_backward=True
    )
    assert masked.forward.attention == cost.forward.attention


def test_attention_outside_the_meta_device_computes_as_ever() -> None:
    qkv = [torch.randn(1, 1, 5, 8) for _ in range(3)]
    expected = F.scaled_dot_product_attention(*qkv)
    found: list[torch.Tensor] = []

    def call() -> torch.Tensor:
        found.append(F.scaled_dot_product_attention(*qkv))
        return found[0]

    measured_call(call, with_backward=False)
    assert torch.equal(found[0], expected)


def test_views_share_memory_and_freed_tensors_do_not_count() -> None:
    with CostMeter() as meter:
        x = torch.empty(1000, device="meta")
        view = x.view(10, 100)[2:]
        assert meter.live_nbytes == 4000
        del x
        assert meter.live_nbytes == 4000, "the view holds the memory"
        del view
        assert meter.live_nbytes == 0
        assert meter.peak_nbytes == 4000


def test_types_decide_which_rate_applies() -> None:
    stack = layers(torch.bfloat16)
    cost = measured_call(lambda: run(stack, made(ROWS, WIDTH, dtype=torch.bfloat16)), with_backward=False)
    assert (cost.forward.matmul, cost.forward.matmul_float32) == (DEPTH * MATMUL, 0)
    image, kernel = made(1, 3, 8, 8), made(4, 3, 3, 3)
    picture = measured_call(lambda: F.conv2d(image, kernel), with_backward=False)
    assert picture.forward.convolution_float32 == 2 * 4 * 6 * 6 * 27


def test_calls_in_sequence_add_their_work_and_need_the_largest_memory() -> None:
    small = CallCost(forward=Work(matmul=1, num_operations=2), forward_nbytes=10)
    large = CallCost(forward=Work(matmul=5), forward_nbytes=30)
    both = in_sequence(small.repeated(3), large)
    assert (both.forward.matmul, both.forward.num_operations, both.peak_nbytes) == (8, 6, 30)
    assert small.repeated(0).peak_nbytes == 0


def test_counts_of_what_trains() -> None:
    stack = layers()
    stack[0].requires_grad_(False)
    cost = with_trained_counts(AgentCost(), stack)
    assert (cost.num_trained, cost.num_largest) == ((DEPTH - 1) * WIDTH**2, WIDTH**2)
