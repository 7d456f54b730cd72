"""The order in which training uses the samples."""

from __future__ import annotations

import hashlib
import random


class SampleOrder:
    """Maps each place of the endless training sequence to a sample and a noise seed.

    A pure function of (seed, place), so the data cursor is one integer and a resumed run uses the same samples.
    """

    def __init__(self, num_samples: int, *, seed: int, shuffle: bool) -> None:
        self._num_samples = num_samples
        self._seed = seed
        self._shuffle = shuffle
        self._last_epoch: tuple[int, list[int]] | None = None  # number and order of the epoch that was asked for last

    def sample_index(self, place: int) -> int:
        """Index of the sample at `place`; every epoch has its own permutation."""
        epoch, position = divmod(place, self._num_samples)
        if not self._shuffle:
            return position
        if self._last_epoch is None or self._last_epoch[0] != epoch:
            order = list(range(self._num_samples))
            random.Random(f"{self._seed}/{epoch}").shuffle(order)
            self._last_epoch = (epoch, order)
        return self._last_epoch[1][position]

    def noise_seed(self, place: int) -> int:
        """Seed of all randomness of the sample at `place` (timestep, noise, posterior, first frame): 63 bits."""
        digest = hashlib.sha256(f"{self._seed}/noise/{place}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1
