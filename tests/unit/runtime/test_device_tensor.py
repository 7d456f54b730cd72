"""Messages about device memory: any bytes give a value or one named error."""

import contextlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mora_runtime.errors import BoundsError, FrameError
from mora_runtime.limits import MAX_SEGMENT_NBYTES, NUM_DEVICE_EVENTS
from mora_runtime.wire.device_tensor import DeviceOffer, DeviceTensor
from mora_runtime.wire.tensor_meta import DTYPE_CODES

OFFER = DeviceOffer(
    1 << 63, b"u" * 16, 4 << 20, bytes(range(64)), tuple(bytes([n]) * 64 for n in range(NUM_DEVICE_EVENTS))
)
TENSOR = DeviceTensor(7, 256, 24, DTYPE_CODES[torch.float32], (2, 3), 5)


def test_an_offer_and_a_tensor_are_unpacked_as_they_were_packed() -> None:
    assert DeviceOffer.unpack(OFFER.pack()) == OFFER
    assert DeviceTensor.unpack(TENSOR.pack()) == TENSOR
    assert len(OFFER.pack()) <= 4200


@given(st.binary(max_size=300))
def test_any_bytes_are_a_value_or_a_named_error(data: bytes) -> None:
    for kind in (DeviceOffer, DeviceTensor):
        with contextlib.suppress(FrameError, BoundsError):
            assert kind.unpack(data).pack() == data


@given(st.integers(0, 90), st.integers(0, 255))
def test_a_changed_byte_is_a_value_or_a_named_error(place: int, value: int) -> None:
    for kind, whole in ((DeviceOffer, OFFER), (DeviceTensor, TENSOR)):
        data = bytearray(whole.pack())
        data[place % len(data)] = value
        with contextlib.suppress(FrameError, BoundsError):
            kind.unpack(bytes(data))


@pytest.mark.parametrize("cut", [0, 1, 26, 97, 98, 99, 4000])
def test_a_cut_offer_is_refused(cut: int) -> None:
    with pytest.raises(FrameError):
        DeviceOffer.unpack(OFFER.pack()[:cut])


@pytest.mark.parametrize("nbytes", [0, MAX_SEGMENT_NBYTES + 1])
def test_an_offer_of_an_absurd_size_is_refused(nbytes: int) -> None:
    with pytest.raises(FrameError):
        DeviceOffer.unpack(DeviceOffer(1, b"u" * 16, nbytes, b"h" * 64, (b"e" * 64,)).pack())


def test_an_offer_of_another_version_names_both() -> None:
    with pytest.raises(FrameError, match="version 9, expected 1"):
        DeviceOffer.unpack(b"\x09" + OFFER.pack()[1:])


@pytest.mark.parametrize(
    "tensor",
    [
        DeviceTensor(7, 1, 24, 0, (2, 3), 5),
        DeviceTensor(7, 256, 23, 0, (2, 3), 5),
        DeviceTensor(7, 256, 24, 200, (2, 3), 5),
        DeviceTensor(7, 256, 24, 0, (1 << 63, 1 << 63), 5),
    ],
)
def test_a_tensor_whose_fields_do_not_fit_together_is_refused(tensor: DeviceTensor) -> None:
    with pytest.raises(BoundsError):
        DeviceTensor.unpack(tensor.pack())
