"""The fields of each endpoint's body, as shown in `/openapi.json`.

`RequestFields` reads a body by these names and checks each value where it is used, so that an error names the field and
its limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field

from mora_launch.limits import MAX_NUM_IMAGES, MAX_NUM_STEPS, MAX_PRIORITY, MAX_SEED
from mora_launch.review.decision import Action
from mora_launch.serving.http.jobs.video_job import MEDIA_TYPES
from mora_launch.serving.http.results.picture_format import PICTURE_TYPES
from mora_launch.tasks.catalog import TASKS

_FILE = {"type": "string", "format": "binary"}
_Reference = str | dict[str, str]
_GUIDANCE = "these models have one guidance; give guidance_scale"
_NO_SOUND = "results have no sound"
_STRENGTH = "How much a picture changes. Refused where the agent that changes it follows the instruction alone."
_SCHEDULE = "the noise schedule is a part of the configuration"
_MAX_NUM_REFERENCES = max(int(task.needs_image) + task.num_videos + task.num_optional_videos for task in TASKS.values())
FORM = "multipart/form-data"


def _given_as(field: str) -> dict[str, str]:
    """Return what to give in place of other servers' fields for pictures and videos."""
    names = ("image", "reference_url", "video_url", "video_path")
    return dict.fromkeys(names, f"give {field}, for instance as a file")


class RequestBody(BaseModel):
    """Base of all bodies.

    Attributes:
        ignored: fields of OpenAI's interface without a meaning here.
        instead: fields of other interfaces, with what to give in their place.
        files: fields that are files of a form, with the largest number of them.
        references: fields that may be objects with one key, and the possible keys; their texts may be data: URLs, which
            are longer than other texts. One that may be several files may be a list.
        aliases: other names of references.
        groups: objects whose fields may as well be given by themselves.
        objects: other fields that may be objects.
    """

    ignored: ClassVar[tuple[str, ...]] = ()
    instead: ClassVar[Mapping[str, str]] = {}
    files: ClassVar[Mapping[str, int]] = {}
    references: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    aliases: ClassVar[Mapping[str, str]] = {}
    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    objects: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def names(cls) -> frozenset[str]:
        """Return the names of all fields that are read."""
        return frozenset(cls.model_fields) | frozenset(cls.files)

    @classmethod
    def may_be_long(cls, name: str) -> bool:
        """Whether a field of this name may be a data: URL."""
        return cls.is_reference(name.partition("[")[0])

    @classmethod
    def is_reference(cls, name: str) -> bool:
        """Whether a field may be a reference."""
        return cls.aliases.get(name, name) in cls.references

    @classmethod
    def documented(cls) -> dict[str, Any]:
        """Return `openapi_extra` for an endpoint with this body: as JSON, and as a form if it has files."""
        schema = cls.model_json_schema()
        for name, allowed in cls.groups.items():
            inner = {each: schema["properties"][each] for each in allowed}
            shape = {"type": "object", "properties": inner, "additionalProperties": False}
            schema["properties"][name] |= {"anyOf": [shape, {"type": "null"}]}
        content: dict[str, Any] = {"application/json": {"schema": schema}}
        if cls.files:
            files = {name: {"type": "array", "items": _FILE, "maxItems": most} for name, most in cls.files.items()}
            content[FORM] = {"schema": {**schema, "properties": {**schema["properties"], **files}}}
        return {"requestBody": {"required": True, "content": content}}


_PICTURE_GROUP = ("seed", "num_inference_steps", "guidance_scale", "negative_prompt", "width", "height")


class Sampled(RequestBody):
    """What a picture and a video have in common."""

    objects = ("lora",)

    prompt: str = Field(min_length=1, max_length=4000, examples=["a red circle moves left"])
    model: str | None = Field(default=None, description="A name of `/v1/models`.", examples=["mora"])
    negative_prompt: str | None = Field(
        default=None, max_length=4000, description="What is not shown. Needs a guidance above 1.", examples=["blue"]
    )
    size: str | None = Field(default=None, description="WIDTHxHEIGHT, or `auto`.", examples=["auto"])
    width: int | None = Field(default=None, ge=1, description="With `height`, in place of `size`.")
    height: int | None = Field(default=None, ge=1, description="With `width`, in place of `size`.")
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED, examples=[5])
    num_inference_steps: int | None = Field(default=None, ge=1, le=MAX_NUM_STEPS, examples=[4])
    guidance_scale: float | None = Field(default=None, ge=0, le=50, examples=[3.5])
    lora: str | dict[str, Any] | None = Field(
        default=None,
        description="The name of LoRA adapters of this server, or an object with `name` and a `scale` of 0 to 1.",
        examples=["ink", {"name": "ink", "scale": 0.5}],
    )
    priority: int | None = Field(
        default=None, ge=-MAX_PRIORITY, le=MAX_PRIORITY, description="Smaller is earlier, among your own requests.",
        examples=[-1],
    )  # fmt: skip
    extra_params: dict[str, Any] | None = Field(
        default=None, description="Sampling fields in one object.", examples=[{"seed": 5}]
    )


class ImageGeneration(Sampled):
    """`POST /v1/images/generations`."""

    ignored: ClassVar[tuple[str, ...]] = (
        "user",
        "quality",
        "style",
        "background",
        "moderation",
        "partial_images",
        "input_fidelity",
    )
    instead: ClassVar[Mapping[str, str]] = {
        "aspect_ratio": "give size=WIDTHxHEIGHT",
        "true_cfg_scale": _GUIDANCE,
        "guidance_scale_2": _GUIDANCE,
        "extra_body": "give each of its fields by itself",
    }
    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {"extra_params": _PICTURE_GROUP}

    n: int | None = Field(default=None, ge=1, le=MAX_NUM_IMAGES, examples=[2])
    response_format: Literal["b64_json", "url"] | None = Field(default=None, examples=["url"])
    output_format: Literal["png", "jpeg", "webp"] | None = Field(
        default=None, description="`png` by default.", examples=list(PICTURE_TYPES)
    )
    output_compression: int | None = Field(
        default=None, ge=0, le=100, description="Quality of jpeg and webp; 100 by default."
    )
    enhance: bool | None = Field(default=None, description="Whether the prompt agent rewrites the prompt first.")
    stream: bool | None = Field(default=None, description="Send progress and pictures as events.")


class ImageEdit(ImageGeneration):
    """`POST /v1/images/edits`."""

    ignored = (*ImageGeneration.ignored, "mask")
    files = {"image": 1}
    references = {"image": ("image_url",)}
    groups = {"extra_params": (*_PICTURE_GROUP, "strength")}

    image: _Reference | None = Field(
        default=None, description="A picture: a file, a data: URL in base64, or an object with one."
    )
    strength: float | None = Field(default=None, gt=0, le=1, description=_STRENGTH, examples=[0.5])


class VideoSampling(Sampled):
    """What all requests for a video have in common."""

    ignored = ("user", "quality", "metadata")
    instead: ClassVar[Mapping[str, str]] = {
        "aspect_ratio": "give size=WIDTHxHEIGHT",
        "duration": "give seconds",
        "num_outputs_per_prompt": "one request makes one video",
        "extra_body": "give each of its fields by itself",
        "true_cfg_scale": _GUIDANCE,
        "guidance_scale_2": _GUIDANCE,
        "boundary_ratio": _SCHEDULE,
        "flow_shift": _SCHEDULE,
        "generate_sound": _NO_SOUND,
        "sound_duration": _NO_SOUND,
    }
    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "extra_params": (*_PICTURE_GROUP, "num_frames", "fps"),
        "video_params": ("width", "height", "num_frames", "fps"),
    }

    seconds: float | str | None = Field(
        default=None, description="Length of what is made: a whole number of frames.", examples=["2", 2]
    )
    num_frames: int | None = Field(default=None, ge=2, description="In place of `seconds`.", examples=[9])
    fps: float | None = Field(default=None, ge=0.1, le=120, examples=[8])
    video_params: dict[str, Any] | None = Field(
        default=None, description="Size and length in one object.", examples=[{"num_frames": 9}]
    )
    n: int | None = Field(default=None, ge=1, le=1, description="One request makes one video.", examples=[1])
    enhance: bool | None = Field(default=None, description="Whether the prompt agent rewrites the prompt first.")
    format: str | None = Field(default=None, json_schema_extra={"enum": [*MEDIA_TYPES, None]}, examples=["webm"])
    codec: str | None = Field(default=None, description="FFmpeg's name of an encoder.", examples=["libx264"])


class Strength(RequestBody):
    """Of tasks that change a picture."""

    strength: float | None = Field(default=None, gt=0, le=1, description=_STRENGTH, examples=[0.5])


class Reviewed(RequestBody):
    """Of requests that need not be answered at once."""

    review: bool | None = Field(default=None, description="Whether a person reviews every stage.")


class VideoNow(VideoSampling, Strength):
    """`POST /v1/videos/sync`."""

    instead = {**VideoSampling.instead, "video": "give input_reference", **_given_as("input_reference")}
    files = {"input_reference": _MAX_NUM_REFERENCES}
    references = {"input_reference": ("image_url", "id")}
    aliases = {"image_reference": "input_reference"}
    groups = {**VideoSampling.groups, "extra_params": (*VideoSampling.groups["extra_params"], "strength")}

    task: str | None = Field(default=None, json_schema_extra={"enum": [*TASKS, None]}, examples=["text_to_video"])
    input_reference: _Reference | list[_Reference] | None = Field(
        default=None,
        description="A file, a data: URL in base64, the id of a finished video, an object with one, or a list.",
        examples=["video_0", [{"id": "video_0"}, {"id": "video_1"}]],
    )
    image_reference: _Reference | list[_Reference] | None = Field(
        default=None, description="Another name of input_reference."
    )


class VideoCreation(VideoNow, Reviewed):
    """`POST /v1/videos`."""


class VideoRemix(VideoSampling, Strength, Reviewed):
    """`POST /v1/videos/ID/remix`."""

    groups = VideoNow.groups


class VideoExtension(VideoSampling, Reviewed):
    """`POST /v1/videos/extensions`."""

    instead = {**VideoSampling.instead, "input_reference": "give video", **_given_as("video")}
    files = {"video": 1}
    references = {"video": ("id",)}

    video: _Reference | None = Field(
        default=None, description="A file, a data: URL in base64, the id of a finished video, or an object with one."
    )


class VideoEdit(VideoExtension, Strength):
    """`POST /v1/videos/edits`."""

    groups = VideoNow.groups


class ReviewDecision(RequestBody):
    """`POST /v1/videos/ID/review`."""

    version: int = Field(examples=[1])
    action: Action = Field(examples=["accept"])
    prompt: str | None = Field(default=None, max_length=4000)
    strength: float | None = Field(default=None, gt=0, le=1)
    reviewer: str | None = Field(default=None, max_length=100)
