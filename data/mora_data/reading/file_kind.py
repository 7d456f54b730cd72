"""The kind of a file, told by its first bytes, never by its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HEAD_NBYTES = 4096  # enough for every kind
PICTURES = "PNG, JPEG, WebP, AVIF or TIFF picture"
VIDEOS = "mp4, mov, mkv, webm, avi, ts, mpg or gif video, or an animated WebP or AVIF"
_SPOKEN_WITH_AN = ("A", "E", "HTML", "M", "SVG", "a", "e", "mkv", "mp4", "mpg", "ogg", "flv")
_UNKNOWN = "something else"
_SYNC, _PACKET_NBYTES, _NUM_SYNCS = 0x47, 188, 4
_M2TS_OFFSET, _M2TS_PACKET_NBYTES = 4, 192
_OLD_QUICKTIME = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "HEIC picture"),
    **dict.fromkeys((b"mif1", b"msf1", b"mif2"), "HEIF picture"),
    b"avif": "AVIF",
    b"avis": "animated AVIF",
    b"jxl ": "JPEG XL picture",
    b"crx ": "Canon CR3 picture",
    b"M4A ": "M4A sound file",
    b"M4B ": "M4B sound file",
}


@dataclass(frozen=True)
class FileKind:
    """What a file is.

    Attributes:
        name: as people call it.
        media: whether it is shown as a picture or a video; None if it is neither or cannot be read.
        decoder: Pillow's or FFmpeg's name of the format.
    """

    name: str
    media: Literal["picture", "video"] | None = None
    decoder: str = ""

    def __str__(self) -> str:
        spoken = self.name.startswith(_SPOKEN_WITH_AN)
        what = f" {self.media}" if self.media else ""
        return f"{'an' if spoken else 'a'} {self.name}{what}" if self.name != _UNKNOWN else "of no known kind"

    @property
    def is_animation(self) -> bool:
        """Whether Pillow decodes it, though it is a video."""
        return self.media == "video" and self.decoder in ("WEBP", "AVIF")


def kind_of(content: bytes) -> FileKind:
    """Return the kind of a file by its first bytes, `HEAD_NBYTES` of them or all."""
    head = bytes(content[:HEAD_NBYTES])
    for offset, mark, kind in _MARKS:
        if head[offset : offset + len(mark)] == mark:
            return kind
    if head[:4] == b"RIFF":
        return _riff(head)
    if head[4:8] == b"ftyp":
        return _by_brands(head)
    if head[4:8] in _OLD_QUICKTIME:
        return FileKind("mov", "video", "mov")
    if _is_transport_stream(head):
        return FileKind("ts", "video", "mpegts")
    return _of_text(head)


def _riff(head: bytes) -> FileKind:
    if head[8:12] == b"AVI ":
        return FileKind("avi", "video", "avi")
    if head[8:12] == b"WEBP":
        is_animated = head[12:16] == b"VP8X" and len(head) > 20 and bool(head[20] & 2)
        return FileKind("animated WebP", "video", "WEBP") if is_animated else FileKind("WebP", "picture", "WEBP")
    return FileKind("WAV sound file" if head[8:12] == b"WAVE" else "RIFF file")


def _by_brands(head: bytes) -> FileKind:
    """Pictures and sound share the container of mp4; the major brand tells them, or a compatible one of a picture."""
    length = min(int.from_bytes(head[:4], "big"), len(head))
    major, others = head[8:12], [head[at : at + 4] for at in range(16, length - 3, 4)]
    if major in (b"mif1", b"msf1", b"mif2"):  # says "a picture"; the codec is among the others
        major = next((brand for brand in others if _BRANDS.get(brand) not in (None, "HEIF picture")), major)
    name = _BRANDS.get(major)
    if name is None:
        return FileKind("mov" if major == b"qt  " else "mp4", "video", "mov")
    if name == "AVIF":
        return FileKind("AVIF", "picture", "AVIF")
    return FileKind(name, "video", "AVIF") if name == "animated AVIF" else FileKind(name)


def _is_transport_stream(head: bytes) -> bool:
    for offset, nbytes in ((0, _PACKET_NBYTES), (_M2TS_OFFSET, _M2TS_PACKET_NBYTES)):
        syncs = head[offset::nbytes][:_NUM_SYNCS]
        if len(syncs) >= 2 and set(syncs) == {_SYNC}:
            return True
    return False


def _of_text(head: bytes) -> FileKind:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:200].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return FileKind("HTML page")
    if b"<svg" in start:
        return FileKind("SVG picture")
    if not head:
        return FileKind("empty file")
    if b"\0" not in head and all(byte >= 0x20 or byte in b"\t\r\n\f\x1b" for byte in head):
        return FileKind("text file")
    return FileKind(_UNKNOWN)


_MARKS = (
    (0, b"\x89PNG\r\n\x1a\n", FileKind("PNG", "picture", "PNG")),
    (0, b"\xff\xd8\xff", FileKind("JPEG", "picture", "JPEG")),
    (0, b"II*\0", FileKind("TIFF", "picture", "TIFF")),
    (0, b"MM\0*", FileKind("TIFF", "picture", "TIFF")),
    (0, b"GIF87a", FileKind("gif", "video", "gif")),
    (0, b"GIF89a", FileKind("gif", "video", "gif")),
    (0, b"\x1a\x45\xdf\xa3", FileKind("mkv or webm", "video", "matroska")),
    (0, b"\0\0\1\xba", FileKind("mpg", "video", "mpeg")),
    (0, b"\0\0\1\xb3", FileKind("mpg", "video", "mpegvideo")),
    (0, b"FLV\1", FileKind("flv", "video", "flv")),
    (0, b"OggS", FileKind("ogg", "video", "ogg")),
    (0, b"\0\0\0\x0cJXL ", FileKind("JPEG XL picture")),
    (0, b"\xff\x0a", FileKind("JPEG XL picture")),
    (0, b"\0\0\0\x0cjP  ", FileKind("JPEG 2000 picture")),
    (0, b"BM", FileKind("BMP picture")),
    (0, b"8BPS", FileKind("Photoshop picture")),
    (0, b"\x76\x2f\x31\x01", FileKind("OpenEXR picture")),
    (0, b"II+\0", FileKind("BigTIFF picture")),
    (0, b"MM\0+", FileKind("BigTIFF picture")),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", FileKind("wmv video")),
    (0, b"%PDF", FileKind("PDF file")),
    (0, b"PK\3\4", FileKind("ZIP file")),
    (0, b"\x1f\x8b", FileKind("gzip file")),
    (0, b"ID3", FileKind("MP3 sound file")),
    (0, b"fLaC", FileKind("FLAC sound file")),
)  # fmt: skip
