"""What an agent can do for people's requests (`mora generate`, `mora serve`)."""

from __future__ import annotations

from typing import Literal, get_args

Capability = Literal[
    "text_to_image", "image_to_image", "edit_image", "image_to_video", "extend_video", "connect_videos"
]
CAPABILITIES: tuple[str, ...] = get_args(Capability)
PICTURES = ("text_to_image", "image_to_image", "edit_image")  # those that make a picture; the others make a clip
