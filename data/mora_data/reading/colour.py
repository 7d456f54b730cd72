"""Colours of a decoded frame, to sRGB over white.

FFmpeg converts by the tagged matrix and range. Without a tag players take BT.709 from 720 lines on and BT.601 below,
and FFmpeg always BT.601. High dynamic range and wide gamuts are mapped in `tone_mapping`.
"""

from __future__ import annotations

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc
from PIL import Image

from mora_data.reading.tone_mapping import GAMUTS, mapped_to_srgb
from mora_data.reading.unreadable import Unreadable

_UNTAGGED = 2
_HD_HEIGHT = 720
_BACKGROUND = (255, 255, 255)  # transparent places show white
_UNSUPPORTED = {
    int(ColorTrc.LINEAR): "linear",
    int(ColorTrc.LOG): "logarithmic",
    int(ColorTrc.LOG_SQRT): "logarithmic",
    int(ColorTrc.SMPTE428): "SMPTE 428",
}


def to_rgb(frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
    """Return uint8 (H, W, 3) of a frame, as coded: neither turned nor scaled.

    Raises:
        Unreadable: its transfer function is none that can be shown.
    """
    if (name := _UNSUPPORTED.get(_trc(frame))) is not None:
        raise Unreadable(f"has {name} colours, which cannot be shown; convert it to BT.709")
    matrix = _untagged_matrix(frame)
    if frame.format.has_palette or any(part.is_alpha for part in frame.format.components):
        return over_white(np.asarray(frame.reformat(format="rgba", src_colorspace=matrix, threads=1).to_ndarray()))
    if _trc(frame) in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67) or frame.color_primaries in GAMUTS:
        wide = np.asarray(
            frame.reformat(format="rgb48le", src_colorspace=matrix, threads=1).to_ndarray(), dtype=np.uint16
        )
        return mapped_to_srgb(wide, transfer=_trc(frame), primaries=frame.color_primaries)
    return np.asarray(frame.reformat(format="rgb24", src_colorspace=matrix, threads=1).to_ndarray(), dtype=np.uint8)


def over_white(rgba: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Put uint8 (H, W, 4) with straight alpha over white."""
    image = Image.fromarray(rgba)
    alpha = image.getchannel("A")
    if alpha.getextrema() != (255, 255):
        shown = Image.new("RGB", image.size, _BACKGROUND)
        shown.paste(image.convert("RGB"), mask=alpha)
        return np.asarray(shown, dtype=np.uint8)
    return np.ascontiguousarray(rgba[..., :3])


def _trc(frame: av.VideoFrame) -> int:
    return int(frame.color_trc)


def _untagged_matrix(frame: av.VideoFrame) -> Colorspace | None:
    """The matrix that players take for a frame without a tag; None where FFmpeg finds the right one itself."""
    if int(frame.colorspace) != _UNTAGGED:
        return None
    if int(frame.color_primaries) == ColorPrimaries.BT2020:
        return Colorspace.BT2020
    is_hd = int(frame.color_primaries) in (_UNTAGGED, ColorPrimaries.BT709) and frame.height >= _HD_HEIGHT
    return Colorspace.ITU709 if is_hd else None
