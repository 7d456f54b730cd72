"""Multimodal language models for videos: LLaVA-OneVision and Qwen2-VL in transformers' formats.

Frames are passed as pictures, not as videos, so that one question can have several videos, and because the video
processors need torchvision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mora_runtime import report_step
from mora_runtime.errors import BadArgument, CheckpointError
from PIL import Image
from transformers import (
    AutoConfig,
    BatchFeature,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
    PreTrainedModel,
    Qwen2VLForConditionalGeneration,
    Qwen2VLProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
)


class FramesOnly:
    """Mixin that leaves the video part out of a published processor."""

    @classmethod
    def get_attributes(cls) -> list[str]:
        """The processor that transformers loads."""
        return ["image_processor", "tokenizer"]


class LlavaOnevisionFrames(FramesOnly, LlavaOnevisionProcessor):
    """LLaVA-OneVision's processor, for pictures only."""


class Qwen2VLFrames(FramesOnly, Qwen2VLProcessor):
    """Qwen2-VL's processor, for pictures only."""


ARCHITECTURES: dict[str, tuple[type[PreTrainedModel], type[Any]]] = {
    "llava_onevision": (LlavaOnevisionForConditionalGeneration, LlavaOnevisionFrames),
    "qwen2_vl": (Qwen2VLForConditionalGeneration, Qwen2VLFrames),
}


class MultimodalModel:
    """One model with its processor.

    Args:
        name: folder in transformers' layout, or a Hub id.

    Raises:
        CheckpointError: the architecture is another one, or files are missing.
    """

    def __init__(self, name: str, dtype: torch.dtype, device: torch.device) -> None:
        try:
            kind = str(AutoConfig.from_pretrained(name).model_type)
            if kind not in ARCHITECTURES:
                raise CheckpointError(f"`{name}`: expected one of {', '.join(ARCHITECTURES)}, got `{kind}`")
            model_class, processor_class = ARCHITECTURES[kind]
            self.processor = processor_class.from_pretrained(name)
            model = model_class.from_pretrained(name, dtype=dtype, use_safetensors=True)
            self.model = model.to(device).eval().requires_grad_(False)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"`{name}`: cannot be loaded as a multimodal model: {error}") from None
        self._dtype = dtype
        self._device = device

    def inputs(self, messages: Sequence[dict[str, Any]], frames: Sequence[Image.Image]) -> BatchFeature:
        """Arguments of the model's forward, for a batch of one.

        Args:
            messages: the conversation; its content consists of parts `{"type": "text", "text": ...}` and
               `{"type": "image"}`, one for each frame in order.

        Raises:
            BadArgument: a text contains a special token of the model, or everything is longer than the model's context.
        """
        tokenizer = self.processor.tokenizer
        for part in (part for message in messages for part in message["content"]):
            own = [token for token in tokenizer.get_added_vocab() if token in part.get("text", "")]
            if own:
                raise BadArgument(f"question: contains {own[0]}, a special token of the model; expected plain text")
        prompt = self.processor.apply_chat_template(list(messages), add_generation_prompt=True)
        # One list of many pictures, because LLaVA-OneVision would divide a single picture into tiles.
        made = self.processor(images=[list(frames)], text=[prompt], return_tensors="pt")
        return made.to(self._device, self._dtype)

    @torch.inference_mode()
    def answer(self, messages: Sequence[dict[str, Any]], frames: Sequence[Image.Image], max_new_tokens: int) -> str:
        """Greedy decoding of at most `max_new_tokens` tokens, so the same question gives the same text.

        Raises:
            BadArgument: as for `inputs`, or question and answer do not fit into the model's context.
        """
        inputs = self.inputs(messages, frames)
        length = inputs["input_ids"].shape[1]
        context = self.model.config.get_text_config().max_position_embeddings
        if length + max_new_tokens > context:
            raise BadArgument(
                f"question: {length} tokens ({len(frames)} frames) and {max_new_tokens} for the answer do not fit into "
                f"the model's context of {context}; show fewer or smaller frames"
            )
        tokens = self.model.generate(
            **inputs, do_sample=False, temperature=None, top_p=None, top_k=None, max_new_tokens=max_new_tokens,
            stopping_criteria=StoppingCriteriaList([_Progress(length, max_new_tokens)]),
        )  # fmt: skip
        return str(self.processor.tokenizer.decode(tokens[0, length:], skip_special_tokens=True)).strip()


class _Progress(StoppingCriteria):
    """Reports the number of tokens, and ends a cancelled answer (raises Cancelled)."""

    def __init__(self, length: int, max_new_tokens: int) -> None:
        self._length = length
        self._max_new_tokens = max_new_tokens

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        report_step(input_ids.shape[1] - self._length, self._max_new_tokens)
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
