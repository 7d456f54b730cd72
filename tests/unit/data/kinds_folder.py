"""A data set of every kind of file that people bring: `python tests/unit/data/kinds_folder.py FOLDER` makes it.

`./mora data check FOLDER/kinds.jsonl --sheet docs/data-check.webp` then draws the picture of docs/data.md.
"""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
from made_files import greys, quad, turn, write_film
from PIL import Image

UNUSABLE = {
    "empty.mp4": "is an empty file", "page.mp4": "is an HTML page", "photo.mp4": "is a HEIC picture",
    "picture.mp4": "is a PNG picture", "short.mp4": "expected 9 frames", "missing.mp4": "No such file",
}  # fmt: skip
_TURNS = {
    "turned-90": (0, 1, -1, 0),
    "turned-180": (-1, 0, 0, -1),
    "turned-270": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
}
_CONTAINERS = {
    "a.mp4": "libx264", "a.mov": "libx264", "a.mkv": "libx264", "a.webm": "libvpx-vp9", "a.avi": "mpeg4",
    "a.ts": "libx264", "a.mpg": "mpeg2video", "a.flv": "libx264",
}  # fmt: skip
_HDR = "colorprim=bt2020:colormatrix=bt2020nc:log-level=none:transfer="


def make_kinds(folder: Path) -> Path:
    """Make all files and `kinds.jsonl`, which names them."""
    frames = [quad(160, 96)] * 50
    for name, codec in _CONTAINERS.items():
        write_film(folder / name, frames, codec=codec, fps=25)
    for name, matrix in _TURNS.items():
        turn(folder / "a.mp4", folder / f"{name}.mp4", matrix)
    write_film(folder / "pal.mp4", [quad(72, 58)] * 50, aspect=Fraction(16, 15))
    times_ms = [33 * n for n in range(30)] + [2000 + 33 * n for n in range(30)]
    write_film(folder / "uneven.mp4", greys([80 * t // 1000 for t in times_ms]), times_ms=times_ms)
    write_film(folder / "interlaced.ts", frames, fps=25, options={"flags": "+ilme+ildct", "x264-params": "tff=1"})
    write_film(folder / "late.mkv", frames, times_ms=[7000 + 40 * n for n in range(50)])
    write_film(folder / "live.webm", frames, codec="libvpx-vp9", container_options={"live": "1"})
    write_film(folder / "ten-bits.mkv", frames, pix_fmt="yuv420p10le")
    for name, transfer in (("pq.mp4", "smpte2084"), ("hlg.mp4", "arib-std-b67")):
        options = {"x265-params": _HDR + transfer}
        write_film(folder / name, frames, codec="libx265", pix_fmt="yuv420p10le", options=options)
    _write_alpha(folder / "alpha.mkv")
    write_film(folder / "sound.mp4", frames, sound_s=2.0)
    _write_animations(folder)
    _write_cut(folder / "cut.mp4")
    _write_unusable(folder)
    file = folder / "kinds.jsonl"
    names = sorted({path.name for path in folder.iterdir()} | {"missing.mp4"})
    file.write_text("".join(json.dumps({"prompt": "four colours", "video": name}) + "\n" for name in names))
    return file


def _write_alpha(path: Path) -> None:
    alpha = np.where(np.arange(160) < 80, 255, 0).astype(np.uint8)[None].repeat(96, axis=0)
    frame = np.dstack([quad(160, 96), alpha])
    write_film(path, [frame] * 12, codec="ffv1", pix_fmt="bgra", source_format="rgba")


def _write_animations(folder: Path) -> None:
    first, *rest = [Image.fromarray(np.roll(quad(160, 96), 5 * n, axis=1)) for n in range(12)]
    for kind in ("WEBP", "GIF"):
        first.save(folder / f"animated.{kind.lower()}", kind, save_all=True, append_images=rest, duration=100)


def _write_cut(path: Path) -> None:
    draw = np.random.default_rng(0)
    frames = [quad(160, 96) // 2 + draw.integers(0, 99, (96, 160, 3), np.uint8) for _ in range(60)]
    write_film(path, frames, container_options={"movflags": "faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.6)])


def _write_unusable(folder: Path) -> None:
    (folder / "empty.mp4").touch()
    (folder / "page.mp4").write_text("<!doctype html><title>404</title>")
    (folder / "photo.mp4").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(4096))
    Image.fromarray(quad(64, 64)).save(folder / "picture.mp4", "PNG")
    write_film(folder / "short.mp4", [quad(160, 96)] * 5)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    print(make_kinds(target))
