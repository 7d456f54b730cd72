"""The agents as a task sees them: capabilities that take a prompt and a seed, whichever agent has them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

import numpy as np
from mora_data.reading.fitting import Clip, fitted
from mora_runtime.errors import Cancelled, DeadlineExceeded

from mora_launch.chat.prompt_agent import PromptAgent
from mora_launch.serving.feeding.held_sample import HeldSample
from mora_launch.serving.server_pool import ServerPool
from mora_launch.serving.terms import DEFAULT_TERMS, Terms
from mora_launch.serving.work_queue import TakePart
from mora_launch.tasks.catalog import editor

OnStep = Callable[[str, int, int], None]  # capability, step, number of steps
_TICK_S = 0.1
_CANCELLED = "the task was cancelled"


class Agents:
    """Calls capabilities for one run of a task.

    Args:
        sampling: settings of every call; None values leave the agent's defaults.
        on_step: called after every denoising step.
        is_cancelled: polled while a call is in progress.
        terms: of every call.
        on_frames: called, in another thread, with the first frames of a clip while its server makes the others.
    """

    def __init__(
        self,
        pool: ServerPool,
        prompts: PromptAgent,
        *,
        sampling: dict[str, Any],
        deadline_s: float,
        on_step: OnStep | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
        terms: Terms = DEFAULT_TERMS,
        on_frames: Callable[[Clip], None] | None = None,
    ) -> None:
        self._pool = pool
        self._prompts = prompts
        self._sampling = sampling
        self._deadline_s = deadline_s
        self._on_step = on_step
        self._is_cancelled = is_cancelled
        self._terms = terms
        self._on_frames = on_frames
        self._held: tuple[Clip, HeldSample] | None = None  # the last picture, as an array and in its server

    @property
    def num_frames(self) -> int:
        """Number of frames of one clip."""
        return int(self._pool.describe("image_to_video")["num_frames"])

    def enhance(self, prompt: str) -> str:
        """Return the prompt as rewritten by the prompt agent."""
        with self._pool.counters.timing("prompt"):
            return asyncio.run(self._enhanced(prompt))

    async def _enhanced(self, prompt: str) -> str:
        """Ask the prompt agent. A cancelled task takes the question back."""
        question = asyncio.ensure_future(self._prompts.enhance(prompt))
        while not (await asyncio.wait([question], timeout=_TICK_S))[0]:
            if self._is_cancelled():
                question.cancel()
                raise Cancelled(_CANCELLED)
        return question.result()

    def text_to_image(self, prompt: str, seed: int) -> Clip:
        """Make a picture (H, W, 3). It may be in the memory of its server, so it must not be written."""
        return self._picture("text_to_image", prompt, seed)

    def image_to_image(self, prompt: str, seed: int, image: Clip, strength: float) -> Clip:
        """Change a picture towards the prompt; the result has the model's size."""
        about = self._pool.describe("image_to_image")
        own = fitted(image[None], about["height"], about["width"])[0]
        return self._picture("image_to_image", prompt, seed, {"images": own}, {"strength": strength})

    def edit_image(self, prompt: str, seed: int, image: Clip) -> Clip:
        """Change a picture as an instruction says. The result has its size, as far as the model can make it."""
        size = _makeable_size(image, self._pool.describe("edit_image"))
        return self._picture("edit_image", prompt, seed, {"images": fitted(image[None], *size)[0]})

    def edited(self, prompt: str, seed: int, image: Clip, strength: float) -> Clip:
        """Change a picture by `edit_image` where an agent has it, else by `image_to_image` with this strength."""
        if editor(self._pool.capabilities()) == "edit_image":
            return self.edit_image(prompt, seed, image)
        return self.image_to_image(prompt, seed, image, strength)

    def image_to_video(self, prompt: str, seed: int, image: Clip, num_used: int = 0) -> Clip:
        """Make a clip that begins with the picture, at the model's size.

        Args:
            num_used: `on_frames` gets this many of its frames at most: those that come next in the video.
        """
        return self._call("image_to_video", prompt, seed, {"images": self._given(image)}, num_used=num_used)

    def extend_video(self, prompt: str, seed: int, frames: Clip, num_used: int = 0) -> Clip:
        """Make frames that follow the given ones; `num_used` as in `image_to_video`."""
        given = self._to_size_of("extend_video", frames)
        return self._call("extend_video", prompt, seed, {"videos": given}, num_used=num_used)

    def connect_videos(self, prompt: str, seed: int, image: Clip, image_after: Clip) -> Clip:
        """Make a clip from the first picture to the second; it includes both."""
        ends = self._to_size_of("connect_videos", np.stack([image, image_after]))
        return self._call("connect_videos", prompt, seed, {"images": ends[0], "images_after": ends[1]})

    def to_video_size(self, frames: Clip) -> Clip:
        """Resize frames to the size of the video agent, which every clip of a task has."""
        return self._to_size_of("image_to_video", frames)

    def _to_size_of(self, capability: str, frames: Clip) -> Clip:
        return fitted(frames, *self._size_of(capability))

    def _size_of(self, capability: str) -> tuple[int, int]:
        about = self._pool.describe(capability)
        return int(about["height"]), int(about["width"])

    def _picture(self, *call: Any) -> Clip:
        made = self._made(*call, is_held=True)
        if not isinstance(made, HeldSample):
            return made
        pixels = made.pixels()
        self._held = pixels, made
        return pixels

    def _given(self, image: Clip) -> Clip | HeldSample:
        """Return a picture for the video agent: as a reference if its server still has it in the right size."""
        if self._held is not None and image is self._held[0] and image.shape[:2] == self._size_of("image_to_video"):
            return self._held[1]
        own: Clip = self.to_video_size(image[None])[0]
        return own

    def _call(self, *call: Any, num_used: int = 0) -> Clip:
        made = self._made(*call, num_used=num_used)
        assert not isinstance(made, HeldSample), "it was not asked for"
        return self.to_video_size(made)

    def _early(self, num_used: int) -> TakePart | None:
        """Return what takes the parts of one call. A call that another server repeats gives some of them again."""
        on_frames, num_taken = self._on_frames, 0
        if on_frames is None or num_used == 0:
            return None

        def take(start: int, frames: Clip) -> None:
            nonlocal num_taken
            new = frames[num_taken - start : num_used - start] if start <= num_taken < num_used else frames[:0]
            num_taken += len(new)
            if len(new):
                on_frames(self.to_video_size(new))

        return take

    def _made(
        self, capability: str, prompt: str, seed: int, sample: dict[str, Any] | None = None,
        shared: dict[str, Any] | None = None, *, is_held: bool = False, num_used: int = 0,
    ) -> Clip | HeldSample:  # fmt: skip
        def tell(step: int, num_steps: int) -> None:
            if self._on_step is not None:
                self._on_step(capability, step, num_steps)

        work = self._pool.submit(
            capability,
            {"prompts": prompt, "seeds": seed, **(sample or {})},
            {"num_inference_steps": None, "guidance_scale": None, **self._sampling, **(shared or {})},
            tell,
            terms=self._terms,
            is_held=is_held,
            on_part=self._early(num_used),
        )
        deadline = time.monotonic() + self._deadline_s
        while True:
            try:
                result: Clip | HeldSample = work.future.result(_TICK_S)
                return result
            except FutureTimeout:
                if self._is_cancelled():
                    work.cancel()
                    raise Cancelled(_CANCELLED) from None
                if time.monotonic() > deadline:
                    work.cancel()
                    raise DeadlineExceeded(f"{capability} gave no result within {self._deadline_s:.0f} s") from None


def _makeable_size(image: Clip, about: dict[str, Any]) -> tuple[int, int]:
    """Return the size that is nearest to the picture's own of those that a model can make, with its proportions."""
    multiple, longest = int(about.get("size_multiple", 1)), max(image.shape[:2])
    scale = min(1.0, int(about.get("largest_side", longest)) / longest)
    height, width = (max(multiple, int(side * scale) // multiple * multiple) for side in image.shape[:2])
    return height, width
