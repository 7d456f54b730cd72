"""What an agent of a chain can do: its remote methods, with shapes. `Interface` tells which of them a kind has.

B is the number of samples of a call. Every tensor between agents is float32, about [-1, 1]: `images` (B, 3, H, W) or
`frames` (B, F, 3, H, W). An agent names its own inputs: a transform with `takes = {"images": ...}` has an argument
`images`. All randomness of a sample comes from its seed, so a sample is the same alone and in a batch.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch


class Text(Protocol):
    """`has_text`: the agent encodes prompts itself and keeps the results."""

    def encode(self, prompts: list[str]) -> dict[str, Any]:
        """`keys`: one for each prompt. The same prompt gives the same key."""

    def unload_text_encoder(self) -> dict[str, Any]:
        """Free the text encoder; a new prompt loads it again."""


class Modulated(Protocol):
    """`has_modulation`: the agent appends z_i to its conditioning."""

    def modulation_rows(self, text: str, new_token: bool) -> dict[str, Any]:
        """`rows` that start z_i: float32 (rows, d). An agent without text encoder chooses them itself."""


class Source(Protocol):
    """`gives` without `takes`: the first agent of a chain. Differentiable in z and in the agent's parameters."""

    def forward(
        self, z: torch.Tensor | None, prompt_keys: list[str], seeds: list[int], target_keys: list[str] | None = None
    ) -> dict[str, Any]:
        """The outputs that `gives` names, and with `target_keys` also the agent's own scalar `loss`.

        `target_keys` is absent without `has_loss` and `needs_targets`.
        """


class Transform(Protocol):
    """`takes` and `gives`: an agent inside a chain. Differentiable in its inputs, in z and in its parameters.

    `images` stands for the names in `takes`.
    """

    def forward(
        self,
        z: torch.Tensor | None,
        prompt_keys: list[str],
        seeds: list[int],
        images: torch.Tensor,
        target_keys: list[str] | None = None,
    ) -> dict[str, Any]:
        """As `Source.forward`."""


class Objective(Protocol):
    """`takes` and `has_loss`: the last agent of a chain. Differentiable in its inputs, in z and in its parameters."""

    def loss(
        self,
        z: torch.Tensor | None,
        prompt_keys: list[str],
        seeds: list[int],
        images: torch.Tensor,
        target_keys: list[str],
    ) -> dict[str, Any]:
        """`loss`: scalar float32, the mean over the batch.

        `target_keys` is absent without `needs_targets`.
        """


class Targets(Protocol):
    """`needs_targets`: the agent's loss compares with the clips of the data set."""

    def store_target(self, pixels: torch.Tensor) -> dict[str, Any]:
        """`key` of a clip, uint8 (F, H, W, 3). The agent keeps what it needs of it; the same clip has the same key.

        Before the first step it gets the clips of all steps. It can take them on the host
        (`@remote(host_arguments=("pixels",))`).
        """

    def has_targets(self, keys: list[str]) -> dict[str, Any]:
        """Optional: `found`, for each key whether the agent has that clip; see `mora_environment.job_folder`.

        With this method no clip is sent again that a restarted server, or another replica's, has stored.
        """


class Generator(Protocol):
    """`generates`: makes pictures or clips at the end of a chain, without gradient."""

    def generate(
        self, z: torch.Tensor | None, prompt_keys: list[str], seeds: list[int], images: torch.Tensor
    ) -> dict[str, Any]:
        """`outputs`: uint8 (B, H, W, 3), or (B, F, H, W, 3) for frames. `images` stands for the names in `takes`."""


class Noise(Protocol):
    """`has_noise`: the noise that a seed stands for, stored with the videos that a model is trained on again."""

    def initial_noise(self, seed: int) -> dict[str, Any]:
        """`noise`: float32, the initial noise of one sample."""


class Critic(Protocol):
    """`is_critic`: scores pictures or clips; never trains."""

    def score(self, prompts: list[str], frames: torch.Tensor) -> dict[str, Any]:
        """`scores`: float32 (B,), one for each sample. `frames` stands for the names in `takes`."""

    def loss(self, prompts: list[str], frames: torch.Tensor) -> dict[str, Any]:
        """`loss`: scalar float32, differentiable in the frames; lower is better."""


class Served(Protocol):
    """Capabilities for people's requests (`mora serve`): an agent has those that it can do.

    Each takes `prompts`, `seeds`, its pictures or clips as uint8, and the overrides `num_inference_steps` and
    `guidance_scale`; each returns `outputs`, uint8. The same prompt, seed and settings give the same bytes in any
    batch.
    """

    def describe(self) -> dict[str, Any]:
        """Defaults and limits of requests: model, height, width, num_frames, size_multiple, largest_side,
        num_inference_steps, least_num_inference_steps, guidance_scale.

        With `takes_negative_prompt`: true, each capability also has the argument `negative_prompt`, a text or None for
        the agent's own. Without it, a request that has one is refused.
        """


class Metric(Protocol):
    """`is_metric`: measures one video at a time; it is in no chain and never trains.

    A metric may also have `features(frames)` and `text_features(text)`, each with `features`, float32, if other
    metrics can be computed from them.
    """

    def describe(self) -> dict[str, Any]:
        """What the agent measures:

        - `model`: the name of its network.
        - `dimensions`: names of what it measures.
        - `versions`: for each dimension a text; it differs whenever the same video could get another score.
        - `notes`: lines to show when the agent is loaded, such as the licence of its weights.
        """

    def measure(self, dimension: str, frames: torch.Tensor, fps: float, prompt: str, words: str) -> dict[str, Any]:
        """`score` of one video and its `weight`; other entries are details, float32 tensors or floats.

        The overall value of a dimension is the mean of the videos' scores, weighted with `weight`. Every number is
        finite. A video that cannot be scored raises BadArgument, with one line that says why.

        Args:
            dimension: one of `dimensions`.
            frames: uint8 (F, H, W, 3). The agent can take them on the host (`@remote(host_arguments=("frames",))`).
            fps: frames a second of the video.
            prompt: the text that the video was made from; empty = unknown.
            words: the style of `appearance_style`; empty for other dimensions.
        """
