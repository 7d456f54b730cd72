"""High dynamic range and wide gamuts to sRGB.

PQ (SMPTE ST 2084) and HLG (ARIB STD-B67, ITU-R BT.2100) become light in nits. Light up to a knee below SDR white is
unchanged; above it the largest channel is compressed up to the mastered peak, so that hues stay (as in ITU-R BT.2390,
with a rational curve). Then the primaries become BT.709's.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorPrimaries, ColorTrc

_WHITE_NITS = 203.0  # of SDR white in HDR programmes, BT.2408
_PEAK_NITS = 1000.0  # mastered peak that becomes white
_KNEE = 0.6  # share of SDR white
_HLG_GAMMA = 1.2  # of the system at 1000 nits, BT.2100
_BT709 = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
_D65 = (0.3127, 0.3290)
GAMUTS = {
    int(ColorPrimaries.BT2020): ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    int(ColorPrimaries.SMPTE432): ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # Display P3
}
_Floats = npt.NDArray[np.float32]


def mapped_to_srgb(rgb: npt.NDArray[np.uint16], *, transfer: int, primaries: int) -> npt.NDArray[np.uint8]:
    """Map uint16 (H, W, 3), full range, to uint8 sRGB.

    Args:
        transfer: PQ, HLG, or any other, which counts as SDR.
        primaries: BT.2020 or Display P3; others count as BT.709.
    """
    light = _lut(transfer)[rgb]  # 1.0 is SDR white
    if transfer == ColorTrc.ARIB_STD_B67:
        luminance = light @ np.array([0.2627, 0.6780, 0.0593], dtype=np.float32)
        light = light * (_PEAK_NITS / _WHITE_NITS * luminance ** (_HLG_GAMMA - 1.0))[..., None]
    if transfer in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67):
        light = _compressed(light)
    if primaries in GAMUTS:
        light = light @ _to_bt709(primaries).T
    steps = np.clip(light * 4095.0 + 0.5, 0, 4095).astype(np.uint16)
    shown: npt.NDArray[np.uint8] = _encoded()[steps]
    return shown


def _compressed(light: _Floats) -> _Floats:
    """Light from 0 to the peak, to 0 to 1."""
    most = light.max(axis=-1, keepdims=True)
    peak = np.float32(_PEAK_NITS / _WHITE_NITS)
    slope = (peak - _KNEE) / (1.0 - _KNEE)  # so that the curve has no edge at the knee
    above = np.clip((most - _KNEE) / (peak - _KNEE), 0.0, 1.0)
    shown = np.where(most > _KNEE, _KNEE + (1.0 - _KNEE) * slope * above / (1.0 + (slope - 1.0) * above), most)
    compressed: _Floats = light * (shown / np.maximum(most, np.float32(1e-9)))
    return compressed


@functools.cache
def _lut(transfer: int) -> _Floats:
    """Light of every 16-bit value; of HLG, scene light from 0 to 1."""
    signal = np.arange(1 << 16, dtype=np.float64) / 65535.0
    if transfer == ColorTrc.SMPTE2084:
        m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
        power = signal ** (1 / m2)
        light = (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1) * 10_000.0 / _WHITE_NITS
    elif transfer == ColorTrc.ARIB_STD_B67:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    else:
        light = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    return light.astype(np.float32)


@functools.cache
def _encoded() -> npt.NDArray[np.uint8]:
    """The sRGB byte of 4096 steps of light."""
    light = np.arange(4096) / 4095.0
    signal = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(signal * 255.0).astype(np.uint8)


@functools.cache
def _to_bt709(primaries: int) -> _Floats:
    return (np.linalg.inv(_to_xyz(_BT709)) @ _to_xyz(GAMUTS[primaries])).astype(np.float32)


def _to_xyz(corners: tuple[tuple[float, float], ...]) -> npt.NDArray[np.float64]:
    """The matrix from linear RGB of these primaries, with D65 white, to CIE XYZ."""
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in corners]).T
    white = np.array([_D65[0] / _D65[1], 1.0, (1 - _D65[0] - _D65[1]) / _D65[1]])
    return np.asarray(columns * np.linalg.solve(columns, white))
