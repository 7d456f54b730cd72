"""Rows that start z, from the CLIP text encoders of a pipeline whose rows a UNet attends to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

Encode = Callable[[str], Tensor]  # a text to its rows (L, d)


def clip_rows(encode: Encode, tokenizer: Any, encoders: Sequence[nn.Module], text: str, *, new_token: bool) -> Tensor:
    """The rows of a text's own tokens, without start and end: (tokens, d).

    Args:
        encode: runs the encoders.
        tokenizer: of all encoders; token 0 of a text is start-of-text.
        new_token: one token whose input embedding is the mean of each encoder's vocabulary, instead of `text`.
    """
    if new_token:
        with ExitStack() as stack:
            for encoder in encoders:
                stack.enter_context(_mean_at_first(encoder))
            return encode("")[1:2]
    num_content = len(tokenizer(text, add_special_tokens=False).input_ids)
    return encode(text)[1 : 1 + num_content]


@contextmanager
def _mean_at_first(encoder: nn.Module) -> Iterator[None]:
    """Have an encoder see, after start-of-text, a token whose input embedding is the vocabulary's mean."""
    table = encoder.get_input_embeddings()  # type: ignore[operator]

    def replace(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        changed = output.clone()
        changed[:, 1] = table.weight.mean(dim=0)
        return changed

    hook = table.register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()
