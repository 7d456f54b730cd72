"""Pictures and videos that come with a request as bytes, told apart by their content."""

from __future__ import annotations

from collections.abc import Sequence

from mora_launch.serving.settings import ServingSettings
from mora_launch.tasks.errors import BadRequest
from mora_launch.tasks.media import Clip, Video, read_picture, read_video, video_format


def read_inputs(
    contents: Sequence[bytes], field: str, settings: ServingSettings, size: tuple[int, int]
) -> tuple[Clip | None, tuple[Video, ...]]:
    """The picture and the videos among some files.

    Args:
        size: (height, width) that videos are brought to frame by frame, so that large ones never stand in memory.

    Raises:
        BadRequest: naming `field`: one cannot be decoded or is too large, or there are two pictures.
    """
    image: Clip | None = None
    videos: list[Video] = []
    for content in contents:
        if len(content) > settings.max_upload_nbytes:
            raise BadRequest(field, f"expected at most {settings.max_upload_nbytes} bytes, got {len(content)}")
        if video_format(content) is not None:
            videos.append(read_video(content, field, max_frames=settings.max_frames_read, size=size))
        elif image is not None:
            raise BadRequest(field, "expected one picture at most, got another")
        else:
            image = read_picture(content, field)
    return image, tuple(videos)
