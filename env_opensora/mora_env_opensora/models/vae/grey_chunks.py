"""Encoded chunks of mid-grey frames: constants of the autoencoder's weights and the size, computed once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable

import torch
from torch import Tensor, nn

_MAX_CHUNKS = 16  # of a clip's at most two lengths, with and without grad mode, for the sizes in use


class GreyChunks:
    """Moments of chunks whose pixels are all zero; the least recently used ones are dropped.

    The owner calls `clear` when it loads or converts weights. An update of a parameter in place is noticed here.
    """

    def __init__(self) -> None:
        self._chunks: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._state: Hashable = None

    def clear(self) -> None:
        self._chunks.clear()

    def chunk(self, key: Hashable, weights: Iterable[nn.Parameter], encode: Callable[[], Tensor]) -> Tensor:
        """The moments for `key`, by `encode` if they are not known.

        Grad mode is part of the key, because without it convolutions work on slices and their last bits differ.
        """
        state = tuple((weight.data_ptr(), weight._version) for weight in weights)
        if state != self._state:
            self.clear()
            self._state = state
        key = (key, torch.is_grad_enabled())
        if key not in self._chunks:
            self._chunks[key] = encode().detach()
            while len(self._chunks) > _MAX_CHUNKS:
                self._chunks.popitem(last=False)
        self._chunks.move_to_end(key)
        return self._chunks[key]
