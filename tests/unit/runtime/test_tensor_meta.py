"""The valid tensors on the wire, and the one bounds check."""

import pytest
import torch
from mora_runtime.errors import BoundsError
from mora_runtime.wire.tensor_meta import DTYPE_CODES, DTYPES, check_bounds, checked_meta, meta_for, meta_of

FLOATS_2X3 = meta_for(torch.float32, (2, 3))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_of_the_table_has_its_own_code_and_size(dtype: torch.dtype) -> None:
    tensor = torch.empty((3, 5), dtype=dtype)
    assert meta_of(tensor) == checked_meta(DTYPE_CODES[dtype], [3, 5])
    assert meta_of(tensor).nbytes == tensor.numel() * tensor.element_size()


@pytest.mark.parametrize(("shape", "nbytes"), [((), 4), ((0,), 0), ((3, 0, 2), 0), ((1,) * 8, 4)])
def test_scalars_and_empty_tensors_pass(shape: tuple[int, ...], nbytes: int) -> None:
    meta = checked_meta(0, shape)
    assert meta.nbytes == nbytes
    check_bounds(meta, offset=0, nbytes=nbytes, segment_nbytes=4096)
    check_bounds(meta, offset=4096 - 64, nbytes=nbytes, segment_nbytes=4096)


def test_an_empty_tensor_may_be_at_the_very_end_of_its_segment() -> None:
    check_bounds(checked_meta(0, (0,)), offset=4096, nbytes=0, segment_nbytes=4096)
    with pytest.raises(BoundsError, match="exceeds its segment"):
        check_bounds(checked_meta(0, (0,)), offset=4160, nbytes=0, segment_nbytes=4096)


@pytest.mark.parametrize("code", [-1, len(DTYPES), 255, 2**64 - 1])
def test_an_unknown_dtype_is_refused(code: int) -> None:
    with pytest.raises(BoundsError, match="dtype code"):
        checked_meta(code, (1,))


@pytest.mark.parametrize("num_dimensions", [9, 10_000])
def test_too_many_dimensions_are_refused(num_dimensions: int) -> None:
    with pytest.raises(BoundsError, match=f"{num_dimensions} dimensions, expected at most 8"):
        checked_meta(0, [1] * num_dimensions)


@pytest.mark.parametrize("shape", [(-1,), (2, -3), (-2, -2), (0, -1)])
def test_a_negative_dimension_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BoundsError, match="expected sizes >= 0"):
        checked_meta(0, shape)


@pytest.mark.parametrize("shape", [(2**62,), (2**32, 2**32), (2**63, 2**63), (2**61, 3)])
def test_a_product_that_overflows_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BoundsError, match="larger than any segment"):
        checked_meta(0, shape)


def test_a_huge_dimension_next_to_a_zero_gives_an_empty_tensor() -> None:
    assert checked_meta(0, (2**62, 0)).nbytes == 0


@pytest.mark.parametrize("nbytes", [0, 1, 23, 25, 24 * 2, 2**64 - 1])
def test_a_size_that_is_not_the_product_is_refused(nbytes: int) -> None:
    with pytest.raises(BoundsError, match=f"claims {nbytes} bytes, its shape and dtype need 24"):
        check_bounds(FLOATS_2X3, offset=0, nbytes=nbytes, segment_nbytes=4096)


@pytest.mark.parametrize("offset", [4096, 4096 + 64, 4096 * 1024, 2**64 - 64, 2**64])
def test_an_offset_at_or_past_the_end_is_refused(offset: int) -> None:
    with pytest.raises(BoundsError, match="exceeds its segment"):
        check_bounds(FLOATS_2X3, offset=offset, nbytes=24, segment_nbytes=4096)


@pytest.mark.parametrize("offset", [1, 32, 63, 65, 4095, 2**64 - 32, -64, -1])
def test_a_misaligned_or_negative_offset_is_refused(offset: int) -> None:
    with pytest.raises(BoundsError, match="not a multiple of 64"):
        check_bounds(FLOATS_2X3, offset=offset, nbytes=24, segment_nbytes=4096)


def test_a_tensor_may_fill_its_segment_and_not_one_element_more() -> None:
    check_bounds(meta_for(torch.uint8, (4096,)), offset=0, nbytes=4096, segment_nbytes=4096)
    check_bounds(meta_for(torch.uint8, (4032,)), offset=64, nbytes=4032, segment_nbytes=4096)
    with pytest.raises(BoundsError, match="exceeds its segment"):
        check_bounds(meta_for(torch.uint8, (4033,)), offset=64, nbytes=4033, segment_nbytes=4096)


@pytest.mark.parametrize(
    "tensor", [torch.eye(3).to_sparse(), torch.zeros(2, dtype=torch.complex64)], ids=["sparse", "complex"]
)
def test_unsupported_tensors_are_refused_by_the_sender(tensor: torch.Tensor) -> None:
    with pytest.raises(BoundsError, match="expected a dense one of"):
        meta_of(tensor)
