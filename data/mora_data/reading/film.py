"""A video that FFmpeg decodes, frame by frame, from any time on.

FFmpeg gets an open file and the container's name, never a file name or address, and may use only the listed formats
and decoders. So no file can make it open another file, as playlists do, or a decoder that ordinary videos do not need.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from mora_data.reading.colour import to_rgb
from mora_data.reading.costs import Costs
from mora_data.reading.deinterlacing import Deinterlacer
from mora_data.reading.file_kind import FileKind
from mora_data.reading.film_length import packets_length_s, told_lengths_s
from mora_data.reading.fitting import Clip
from mora_data.reading.orientation import UPRIGHT, Matrix, display_matrix, oriented, oriented_size
from mora_data.reading.timeline import CLOSE_S, Clock, ShownFrame, from_time
from mora_data.reading.unreadable import Unreadable

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,mpegvideo,flv,ogg"
CODECS = (
    "h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "libvpx", "libvpx-vp9", "mpeg4", "mpeg2video", "mpeg1video",
    "mjpeg", "ffv1", "gif", "prores", "theora",
)  # fmt: skip
_ALPHA_DECODER = "libvpx-vp9"  # FFmpeg's own decoder of VP9 ignores transparency
MAX_NUM_PIXELS = 64 << 20  # of a frame: 8K is 33 million
_GUESSED = ("mpeg", "mpegvideo")  # FFmpeg guesses their length by the bit rate, and times after a seek
_TIMELESS = "mpegvideo"  # has no timestamps
_DEFAULT_RATE = 8.0  # of a video that does not say
_MAX_RATE = 1000.0
_NEAR_S = 2.0  # decoding so far from the beginning costs less than a seek
_BACK_S = (0.0, 2.0, 8.0, 32.0)  # how far before the wanted time a seek aims, until it finds a keyframe before it
_NUM_FRAMES_BEFORE = 3  # which deinterlacing looks at
_MAX_PIXEL_ASPECT = 16
_MAX_LAST_S = 3600.0  # of one frame
_MAX_MISSING_S = 1.0  # at the end of a file that is whole: lengths are rounded, and some encoders drop frames
_ERRORS = (av.error.FFmpegError, OSError, ValueError, OverflowError)


class Film:
    """A video file, open for reading. A context manager closes what it opened, not the file itself.

    Attributes:
        rate: average frames per second.
        has_sound: whether it has a sound track.
        fault: where decoding broke off, if it did; the frames before are good.
    """

    def __init__(self, file: BinaryIO, kind: FileKind, costs: Costs) -> None:
        """Open the first video stream.

        Raises:
            Unreadable: the file is broken, has no video, or needs a decoder that is not allowed.
        """
        self._file, self._kind, self._costs = file, kind, costs
        self.fault = ""
        self._resources = contextlib.ExitStack()
        try:
            self._container, self._stream = self._open()
            self._is_fresh = True
        except BaseException:
            self._resources.close()
            raise
        rate = float(self._stream.average_rate or self._stream.guessed_rate or _DEFAULT_RATE)
        self.rate = min(rate, _MAX_RATE) if rate > 0 else _DEFAULT_RATE
        self.has_sound = bool(self._container.streams.audio)

    def __enter__(self) -> Film:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def frames(self, start_s: float = 0.0) -> Iterator[ShownFrame]:
        """Yield the frame on screen at a time and all later ones. The cost does not depend on the time, if it can seek.

        Raises:
            Unreadable: no frame can be decoded. A fault after the first one ends the frames, and is in `fault`.
        """
        if start_s > _NEAR_S and self._kind.decoder not in _GUESSED:
            found = self._sought(start_s)
            if found is not None:
                yield from from_time(found, start_s)
                return
        self._rewind()
        yield from from_time(self._shown(Clock(self.rate)), start_s)

    @property
    def duration_s(self) -> float:
        """Length in seconds: what the file says, or, without that, what its packets say."""
        if self._kind.decoder not in _GUESSED:
            told_s = told_lengths_s(self._container, self._stream, of_whole=True)
            if told_s:
                return min(told_s)
        self._rewind()
        return packets_length_s(
            self._container, self._stream, rate=self.rate, has_timestamps=self._kind.decoder != _TIMELESS,
            errors=_ERRORS,
        )  # fmt: skip

    def _open(self) -> tuple[InputContainer, VideoStream]:
        self._file.seek(0)
        options = {"format_whitelist": FORMATS, "codec_whitelist": ",".join(CODECS), "protocol_whitelist": "file"}
        try:
            container = self._resources.enter_context(
                av.open(self._file, "r", format=self._kind.decoder, options=options)
            )
            streams = [each for each in container.streams.video if not _is_cover(each)]
            if not streams:
                raise Unreadable("has no video stream")
            self._check(streams[0])
            streams[0].codec_context.thread_count = 1  # several clips are decoded at once; threads cost address space
            self._alpha_decoder = _alpha_decoder(streams[0])
        except _ERRORS as error:
            raise _unreadable(error) from None
        return container, streams[0]

    def _check(self, stream: VideoStream) -> None:
        context = stream.codec_context
        names = {context.name, context.codec.name}
        if not names <= set(CODECS):  # FFmpeg applies the list only to streams that it probes when it opens the file
            raise Unreadable(f"expected one of the codecs {', '.join(CODECS)}, got {', '.join(sorted(names))}")
        if context.width * context.height > MAX_NUM_PIXELS:
            raise Unreadable(
                f"expected frames of at most {MAX_NUM_PIXELS} pixels, got {context.width}x{context.height}"
            )
        self._costs.expect(stream.frames, context.width, context.height)

    def _rewind(self) -> None:
        """Open the file again, unless nothing has been read of it: not every container can seek to its beginning."""
        self.fault = ""
        if not self._is_fresh:
            self._resources.close()
            self._container, self._stream = self._open()
        self._is_fresh = False

    def _sought(self, start_s: float) -> Iterator[ShownFrame] | None:
        """Frames from a keyframe before a time on; None if no seek finds one."""
        zero_s = self._first_timestamp_s()
        margin_s = _NUM_FRAMES_BEFORE / self.rate
        for back_s in _BACK_S:
            aim_s = start_s - margin_s - back_s
            if aim_s <= 0 or not self._stream.time_base:
                return None
            try:
                self._container.seek(round((zero_s + aim_s) / self._stream.time_base), stream=self._stream)
                shown = self._shown(Clock(self.rate, zero_s), needs_keyframe=True)
                first = next(shown, None)
            except (*_ERRORS, Unreadable):
                first = None
            if first is not None and first.time_s <= start_s - margin_s + CLOSE_S:
                return itertools.chain([first], shown)
            self._rewind()
        return None

    def _first_timestamp_s(self) -> float:
        self._rewind()
        clock = Clock(self.rate)
        next(self._shown(clock), None)
        return clock.zero_s

    def _shown(self, clock: Clock, *, needs_keyframe: bool = False) -> Iterator[ShownFrame]:
        """Frames from the container's position on, as they are shown."""
        end_s = 0.0
        for frame in self._deinterlaced(needs_keyframe=needs_keyframe):
            matrix = _matrix_of(frame)
            timestamp_s = None if self._kind.decoder == _TIMELESS else frame.time
            lasts_s = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
            lasts_s = lasts_s if 0 < lasts_s < _MAX_LAST_S else 1.0 / self.rate
            time_s = clock.time_s(timestamp_s)
            end_s = time_s + lasts_s
            yield ShownFrame(
                time_s,
                lasts_s,
                oriented_size(self._square_size(frame), matrix),
                functools.partial(_converted, frame, matrix),
            )
        if end_s and not self.fault and self._kind.decoder not in _GUESSED:
            told_s = min(told_lengths_s(self._container, self._stream, of_whole=not self.has_sound), default=0.0)
            if told_s - end_s > _MAX_MISSING_S:
                self.fault = f"ends at {end_s:.2f} s of {told_s:.2f} s"

    def _square_size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """The frame's (height, width) in square pixels, before it is turned: the height as coded."""
        aspect = float(self._stream.sample_aspect_ratio or 1)
        if not 1 / _MAX_PIXEL_ASPECT <= aspect <= _MAX_PIXEL_ASPECT:
            aspect = 1.0  # players ignore it too
        return frame.height, max(1, round(frame.width * aspect))

    def _deinterlaced(self, *, needs_keyframe: bool) -> Iterator[av.VideoFrame]:
        deinterlacer = None
        for number, frame in enumerate(self._decoded(needs_keyframe=needs_keyframe)):
            if number == 0 and frame.interlaced_frame:
                deinterlacer = Deinterlacer(self._stream)
            if deinterlacer is None:
                yield frame
                continue
            try:
                done = deinterlacer.push(frame)
            except _ERRORS as error:  # a frame of another size or format, for example
                self.fault = f"breaks off after frame {number} ({_reason(error)})"
                return
            yield from done
        if deinterlacer is not None:
            yield from deinterlacer.push(None)

    def _decoded(self, *, needs_keyframe: bool) -> Iterator[av.VideoFrame]:
        """Frames as coded. An error before the first one passes, as in a recording that begins between keyframes."""
        num_frames = 0
        has_begun = not needs_keyframe
        fault: Unreadable | None = None  # before the first frame
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                self._costs.count_packet()
                has_begun = has_begun or packet.is_keyframe
                if not has_begun:
                    continue
                frames = self._frames_of(packet)
            except _ERRORS as error:
                if num_frames:
                    self.fault = f"breaks off after frame {num_frames} ({_reason(error)})"
                    return
                fault = _unreadable(error)
                continue
            for frame in frames:
                if needs_keyframe and not num_frames and not frame.key_frame and self._alpha_decoder is None:
                    continue  # shown before the keyframe, and made of frames before it
                self._costs.count_frame(frame.width, frame.height)
                num_frames += 1
                yield frame
        if fault is not None and not num_frames:
            raise fault

    def _frames_of(self, packet: av.Packet[VideoStream]) -> list[av.VideoFrame]:
        if self._alpha_decoder is None:
            return packet.decode()
        return self._alpha_decoder.decode(packet if packet.size else None)


def _matrix_of(frame: av.VideoFrame) -> Matrix:
    side = frame.side_data.get(SideDataType.DISPLAYMATRIX)  # type: ignore[call-overload]
    return UPRIGHT if side is None else display_matrix(bytes(side))


def _converted(frame: av.VideoFrame, matrix: Matrix) -> Clip:
    try:
        return np.ascontiguousarray(oriented(to_rgb(frame), matrix))
    except _ERRORS as error:
        raise _unreadable(error) from None


def _alpha_decoder(stream: VideoStream) -> VideoCodecContext | None:
    """The decoder of a VP9 video with transparency; None for all others."""
    if stream.codec_context.name != "vp9" or stream.metadata.get("alpha_mode") != "1":
        return None
    decoder = av.CodecContext.create(_ALPHA_DECODER, "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    return decoder


def _is_cover(stream: VideoStream) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)


def _unreadable(error: Exception) -> Unreadable:
    if isinstance(error, Unreadable):
        return error
    return Unreadable(f"cannot be decoded ({_reason(error)})")


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
