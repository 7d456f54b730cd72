"""The fields of each endpoint's body, as shown in `/openapi.json`.

`RequestFields` reads a body by these names and checks each value where it is used, so that an error names the field and
its limit. `ignored` are fields of OpenAI's interface without a meaning here, `instead` are fields of other interfaces,
with what to give in their place.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field

from mora_launch.limits import MAX_SEED
from mora_launch.review.decision import Action
from mora_launch.serving.http.jobs.video_job import MEDIA_TYPES
from mora_launch.tasks.catalog import TASKS

_SIZE = "give size=WIDTHxHEIGHT"
_FILE = {"type": "string", "format": "binary"}
FORM = "multipart/form-data"


class RequestBody(BaseModel):
    """Base of all bodies."""

    ignored: ClassVar[tuple[str, ...]] = ()
    instead: ClassVar[dict[str, str]] = {}
    files: ClassVar[tuple[str, ...]] = ()  # fields that are files of a form
    data_urls: ClassVar[tuple[str, ...]] = ()  # fields that may be data: URLs, which are longer than other texts

    @classmethod
    def names(cls) -> frozenset[str]:
        """Return the names of all fields that are read."""
        return frozenset(cls.model_fields) | frozenset(cls.files)

    @classmethod
    def documented(cls, *, as_json: bool = True) -> dict[str, Any]:
        """Return `openapi_extra` for an endpoint with this body: as JSON, and as a form if it has files."""
        schema = cls.model_json_schema()
        content: dict[str, Any] = {"application/json": {"schema": schema}} if as_json else {}
        if cls.files:
            files = {name: {"type": "array", "items": _FILE, "maxItems": 4} for name in cls.files}
            content[FORM] = {"schema": {**schema, "properties": {**schema["properties"], **files}}}
        return {"requestBody": {"required": True, "content": content}}


class ImageGeneration(RequestBody):
    """`POST /v1/images/generations`."""

    ignored: ClassVar[tuple[str, ...]] = (
        "user", "quality", "style", "background", "moderation", "output_format", "output_compression",
        "partial_images", "input_fidelity",
    )  # fmt: skip
    instead: ClassVar[dict[str, str]] = {
        "width": _SIZE,
        "height": _SIZE,
        "aspect_ratio": _SIZE,
        "negative_prompt": "say in the prompt what the picture shows",
    }

    prompt: str = Field(min_length=1, max_length=4000)
    model: str | None = None
    n: int | None = Field(default=None, ge=1, le=10)
    size: str | None = None
    response_format: Literal["b64_json"] | None = None
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    num_inference_steps: int | None = Field(default=None, ge=1, le=1000)
    guidance_scale: float | None = Field(default=None, ge=0, le=50)
    stream: bool | None = None


class ImageEdit(ImageGeneration):
    """`POST /v1/images/edits`."""

    ignored: ClassVar[tuple[str, ...]] = (*ImageGeneration.ignored, "mask")
    files = ("image",)

    strength: float | None = Field(default=None, gt=0, le=1)


class VideoCreation(RequestBody):
    """`POST /v1/videos`."""

    ignored = ("user", "quality", "metadata")
    instead: ClassVar[dict[str, str]] = {
        "width": _SIZE,
        "height": _SIZE,
        "aspect_ratio": _SIZE,
        "duration": "give seconds",
        "image": "give input_reference",
        "video": "give input_reference",
        "n": "one request makes one video",
        "negative_prompt": "say in the prompt what the video shows",
        "extra_params": "give each of its fields by itself",
        "extra_body": "give each of its fields by itself",
    }
    files = ("input_reference",)
    data_urls = ("input_reference",)

    prompt: str = Field(min_length=1, max_length=4000)
    input_reference: str | dict[str, str] | None = Field(
        default=None, description='A data: URL in base64, or `{"image_url": URL}` with one.'
    )
    model: str | None = None
    seconds: float | str | None = None
    size: str | None = None
    task: str | None = Field(default=None, json_schema_extra={"enum": [*TASKS, None]})
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    fps: float | None = Field(default=None, ge=0.1, le=120)
    num_frames: int | None = Field(default=None, ge=2)
    strength: float | None = Field(default=None, gt=0, le=1)
    num_inference_steps: int | None = Field(default=None, ge=1, le=1000)
    guidance_scale: float | None = Field(default=None, ge=0, le=50)
    enhance: bool | None = None
    format: str | None = Field(default=None, json_schema_extra={"enum": [*MEDIA_TYPES, None]})
    codec: str | None = None
    review: bool | None = None


class ReviewDecision(RequestBody):
    """`POST /v1/videos/ID/review`."""

    version: int
    action: Action
    prompt: str | None = Field(default=None, max_length=4000)
    strength: float | None = Field(default=None, gt=0, le=1)
    reviewer: str | None = Field(default=None, max_length=100)
