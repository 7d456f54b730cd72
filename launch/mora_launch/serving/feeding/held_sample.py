"""A result that stays in the shared memory of the server that made it, so that another server reads it there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mora_data.reading.fitting import Clip
from mora_runtime.process.role import Role

if TYPE_CHECKING:
    from mora_runtime import TensorRef


@dataclass(frozen=True)
class HeldSample:
    """One sample of a server's answer. The server keeps its memory as long as this object or an array of it exists.

    Attributes:
        row: uint8 (1, ...).
        role: the server.
    """

    row: TensorRef
    role: Role

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the sample."""
        return self.row.shape[1:]

    def pixels(self) -> Clip:
        """Return the sample as an array in place, which must not be written."""
        view: Clip = self.row.tensor()[0].numpy()
        view.flags.writeable = False
        return view


def rows_of(value: object, num_samples: int) -> list[TensorRef] | None:
    """Return a reference to each sample of an answer's tensor; None if they cannot be referred to one by one."""
    from mora_runtime import TensorRef

    if not isinstance(value, TensorRef):
        return None
    rows = [value.row(index) for index in range(num_samples)]
    return None if None in rows else [row for row in rows if row is not None]
