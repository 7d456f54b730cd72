"""The list of tasks. Command line, HTTP, page and the checks of requests read it; it needs no other module."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

_PICTURE, _CIRCLE, _SQUARE = "red-circle.png", "red-circle-right.mp4", "blue-square-left.mp4"
EXAMPLE_FILES = (_PICTURE, _CIRCLE, _SQUARE)  # in `launch/mora_launch/web/assets/`
# What can change a picture as a prompt says; the first of these that an agent has is used. Only `image_to_image` takes
# a strength: `edit_image` follows the instruction alone.
EDITORS = ("edit_image", "image_to_image")


@dataclass(frozen=True)
class Example:
    """A request that the page offers.

    Attributes:
        files: some of `EXAMPLE_FILES`.
    """

    prompt: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """What a task is called, what it needs, and which examples the page shows.

    Attributes:
        title, description: shown by the page.
        fields: those that the task uses in addition to prompt, files and seed.
        capabilities: every one that it may call; of `EDITORS` it calls only one, see `called`.
        needs_image: False = it takes none.
        num_optional_videos: in addition to `num_videos`, which it needs.
    """

    title: str
    description: str
    examples: tuple[Example, ...]
    fields: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    needs_image: bool = False
    num_videos: int = 0
    num_optional_videos: int = 0


# Pictures are requested at an endpoint of their own, so this is no task; the page shows it in the same way.
PICTURE = Task(
    title="Picture",
    description="Describe what the picture shows.",
    examples=(Example("a red circle"), Example("a blue square")),
    fields=("enhance",),
    capabilities=("text_to_image",),
)

# By name. The procedure of a task is the function of its name in the module of its name in this folder.
TASKS: Mapping[str, Task] = {
    "text_to_video": Task(
        title="Text to video",
        description="Describe what the video shows.",
        examples=(Example("a red circle moves right"), Example("a blue square moves up")),
        fields=("seconds", "enhance"),
        capabilities=("text_to_image", "image_to_video", "extend_video"),
    ),
    "image_to_video": Task(
        title="Image to video",
        description="Animates a picture. Describe how it moves.",
        examples=(
            Example("the red circle moves left", (_PICTURE,)),
            Example("the red circle moves down", (_PICTURE,)),
        ),
        fields=("seconds",),
        capabilities=("image_to_video", "extend_video"),
        needs_image=True,
    ),
    "extend": Task(
        title="Extend",
        description="Continues a video from its last frame.",
        examples=(
            Example("the red circle keeps moving right", (_CIRCLE,)),
            Example("the blue square moves up", (_SQUARE,)),
        ),
        fields=("seconds",),
        capabilities=("extend_video",),
        num_videos=1,
    ),
    "edit": Task(
        title="Edit",
        description="Changes the first frame as you describe, then animates it again.",
        examples=(Example("make the circle green", (_CIRCLE,)), Example("make the square yellow", (_SQUARE,))),
        fields=("seconds", "strength"),
        capabilities=(*EDITORS, "image_to_video", "extend_video"),
        num_videos=1,
    ),
    "connect": Task(
        title="Connect",
        description="Makes a transition from the first video to the second.",
        examples=(
            Example("the red circle becomes the blue square", (_CIRCLE, _SQUARE)),
            Example("the blue square becomes the red circle", (_SQUARE, _CIRCLE)),
        ),
        capabilities=("connect_videos",),
        num_videos=2,
    ),
    "simulate": Task(
        title="Simulate",
        description="Makes a scene in the style of a digital world.",
        examples=(Example("a yellow circle moves left"), Example("a red circle moves right", (_CIRCLE,))),
        fields=("seconds", "strength", "enhance"),
        capabilities=("text_to_image", *EDITORS, "image_to_video", "extend_video"),
        num_optional_videos=1,
    ),
}


def editor(known: Collection[str]) -> str:
    """Return the capability that changes a picture as a prompt says, where the agents have the `known` ones."""
    return next((name for name in EDITORS if name in known), EDITORS[-1])


def called(task: Task, known: Collection[str]) -> tuple[str, ...]:
    """Return the capabilities that a task may call where the agents have the `known` ones."""
    return tuple(name for name in task.capabilities if name not in EDITORS or name == editor(known))


def takes_strength(known: Collection[str]) -> bool:
    """Whether a change of a picture has a strength where the agents have the `known` capabilities."""
    return editor(known) == "image_to_image"
