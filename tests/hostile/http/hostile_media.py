"""Pictures and videos that are small but expensive to decode, and files of other kinds."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import av
import numpy as np
from PIL import Image


def png(
    width: int, height: int, *, claimed: tuple[int, int] | None = None, padding: int = 0,
    chunks: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:  # fmt: skip
    """A black RGBA picture; its header may claim another size, and chunks that decoders skip may make it longer.

    Args:
        chunks: (kind, content) of further chunks after the header.
    """
    sink = io.BytesIO()
    Image.new("RGBA", (width, height)).save(sink, "PNG", compress_level=9)
    content = sink.getvalue()
    if claimed is not None:
        head = b"IHDR" + struct.pack(">II", *claimed) + content[24:29]
        content = content[:12] + head + struct.pack(">I", zlib.crc32(head)) + content[33:]
    if chunks:
        more = b"".join(struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
        content = content[:33] + more + content[33:]
    if padding:
        chunk = b"exTr" + b"\0" * padding
        end = content.rindex(b"IEND") - 4
        chunk = struct.pack(">I", padding) + chunk + struct.pack(">I", zlib.crc32(chunk))
        content = content[:end] + chunk + content[end:]
    return content


def scanned_jpeg(side: int, num_scans: int) -> bytes:
    """A progressive JPEG that repeats its last scan, each time over all pixels."""
    sink = io.BytesIO()
    Image.new("RGB", (side, side)).save(sink, "JPEG", progressive=True)
    content = sink.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * num_scans + b"\xff\xd9"


def gif(side: int, num_frames: int) -> bytes:
    """Frames of one pixel on a large canvas: 26 bytes each."""
    frame = b"\x21\xf9\x04\0\x0a\0\0\0" + b"\x2c\0\0\0\0\1\0\1\0\0" + b"\x02\x02\x44\x01\0"
    size = struct.pack("<HH", side, side)
    return b"GIF89a" + size + b"\x80\0\0" + b"\0" * 6 + frame * num_frames + b";"


def cut_up_gif(num_blocks: int) -> bytes:
    """A GIF extension in pieces of one byte."""
    return b"GIF89a\1\0\1\0\0\0\0\x21\xfe" + b"\1x" * num_blocks + b"\0;"


def webp(side: int, num_frames: int) -> bytes:
    """An animated WebP whose frames are claimed and not there."""
    canvas = (side - 1).to_bytes(3, "little") * 2
    header = b"VP8X" + (10).to_bytes(4, "little") + b"\2\0\0\0" + canvas
    frame = b"ANMF" + (16).to_bytes(4, "little") + b"\0" * 6 + canvas + b"\x0a\0\0\0"
    body = b"WEBP" + header + b"ANIM" + (6).to_bytes(4, "little") + b"\0" * 6 + frame * num_frames
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def tiff(width: int, height: int, fields: Sequence[tuple[int, int, int, int]] = ()) -> bytes:
    """A TIFF of one strip whose data is not there; further fields are (tag, type, count, value)."""
    own = ((256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
           (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, width * height & 0xFFFFFFFF))  # fmt: skip
    directory = b"".join(struct.pack("<HHII", *field) for field in sorted((*own, *fields)))
    return b"II*\0" + struct.pack("<IH", 8, min(len(own) + len(fields), 65535)) + directory + b"\0" * 4


def avif(side: int, num_boxes: int) -> bytes:
    """The boxes of an AVIF that claim a size, and no picture."""
    size = struct.pack(">I4sIII", 20, b"ispe", 0, side, side)
    return struct.pack(">I4s4sI4s", 20, b"ftyp", b"avif", 0, b"mif1") + size * num_boxes


def video(
    codec: str, container: str, *, side: int = 64, num_frames: int = 4, pix_fmt: str = "yuv420p", noise: bool = False
) -> bytes:
    """A video of one codec in one container."""
    sink = io.BytesIO()
    random = np.random.default_rng(0)
    with av.open(sink, "w", format=container) as output:
        stream = output.add_stream(codec, rate=8)
        assert isinstance(stream, av.VideoStream)
        stream.height = stream.width = side
        stream.pix_fmt = pix_fmt
        for _ in range(num_frames):
            shape = (side, side, 3)
            pixels = random.integers(0, 255, shape, dtype=np.uint8) if noise else np.zeros(shape, dtype=np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
    return sink.getvalue()
