"""Pictures and clips of a chain with its current weights, without gradient: for samples and candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from mora_runtime import Reply, TensorRef
from mora_runtime.errors import ProtocolError

from mora_trainer.chain.stage import Embeddings, Stage

Pixels = npt.NDArray[np.uint8]  # (H, W, 3), or (F, H, W, 3) of a clip


@dataclass(frozen=True)
class Made:
    """What a chain made from one prompt."""

    stages: dict[str, Pixels]  # by agent, of those before the last: the picture, or the clip, that it gave
    output: Pixels  # of the last agent that gives pictures or clips

    @property
    def clip(self) -> Pixels:
        """The output as a clip (F, H, W, 3); a picture is a clip of one frame."""
        return self.output if self.output.ndim == 4 else self.output[None]

    @property
    def first_frame(self) -> Pixels:
        """The picture that the last agent started from, (H, W, 3); its own first frame if no agent is before it."""
        before = list(self.stages.values())
        picture = before[-1] if before else self.output
        return picture if picture.ndim == 3 else picture[0]


class ChainGenerator:
    """Runs the agents of a chain one after the other.

    Args:
        stages: of the chain; a critic at its end is left out.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = tuple(stage for stage in stages if not stage.interface.is_critic)

    def make(self, prompts: Mapping[str, str], seeds: Mapping[str, int], embeddings: Embeddings) -> Made:
        """Make one picture or clip.

        Args:
            prompts: key of the prompt by agent, from `encode`.
            seeds: by agent.

        Raises:
            ProtocolError: an agent did not answer as its interface declares.
        """
        made: dict[str, Pixels] = {}
        inputs: dict[str, TensorRef] = {}
        *before, last = self.stages
        for stage in before:
            reply = self._call(stage, "forward", prompts, seeds, inputs, embeddings)
            inputs = stage.outputs(reply, 1)
            made[stage.name] = _pixels(stage, inputs)
        if last.interface.generates is None:
            reply = self._call(last, "forward", prompts, seeds, inputs, embeddings)
            output = _pixels(last, last.outputs(reply, 1))
        else:
            output = _generated(last, self._call(last, "generate", prompts, seeds, inputs, embeddings))
        return Made(made, output)

    def _call(
        self,
        stage: Stage,
        method: str,
        prompts: Mapping[str, str],
        seeds: Mapping[str, int],
        inputs: Mapping[str, TensorRef],
        embeddings: Embeddings,
    ) -> Reply:
        arguments = stage.arguments((prompts[stage.name],), (seeds[stage.name],), inputs, embeddings)
        return stage.client.call(stage.name, method, arguments, deadline_s=stage.deadline_s)

    def initial_noise(self, seeds: Mapping[str, int]) -> dict[str, torch.Tensor]:
        """The noise that each agent starts from, float32, by name of the agents that tell it."""
        noise = {}
        for stage in self.stages:
            if stage.interface.has_noise:
                arguments = {"seed": seeds[stage.name]}
                reply = stage.client.call(stage.name, "initial_noise", arguments, deadline_s=stage.deadline_s)
                found = reply.values.get("noise")
                if not isinstance(found, TensorRef):
                    raise ProtocolError(f"{stage.name}.initial_noise: expected a tensor `noise`")
                noise[stage.name] = found.tensor().clone()
        return noise


def _generated(stage: Stage, reply: Reply) -> Pixels:
    found = reply.values.get("outputs")
    if not isinstance(found, TensorRef):
        raise ProtocolError(f"{stage.name}.generate: expected a tensor `outputs`, got {sorted(reply.values)}")
    assert stage.interface.generates is not None
    num_dimensions = 5 if stage.interface.generates.modality == "frames" else 4
    if found.dtype != torch.uint8 or len(found.shape) != num_dimensions or found.shape[0] != 1 or found.shape[-1] != 3:
        raise ProtocolError(
            f"{stage.name}.generate: expected `outputs` as uint8 (1, {'F, ' * (num_dimensions - 4)}H, W, 3), got "
            f"{found.dtype} {found.shape}; correct the agent or its interface"
        )
    return np.array(found.tensor()[0].cpu().numpy(), dtype=np.uint8)


def _pixels(stage: Stage, outputs: Mapping[str, TensorRef]) -> Pixels:
    """The first sample of the stage's first output, which is about [-1, 1] with channels before height and width."""
    name = next(iter(stage.interface.gives), None)
    if name is None:
        raise ProtocolError(f"{stage.name}: gives no pictures or clips, so nothing can be generated with this chain")
    values = ((outputs[name].tensor()[0].float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    pixels: Pixels = values.movedim(-3, -1).contiguous().cpu().numpy()
    return pixels
