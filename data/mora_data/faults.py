"""Everything that is wrong with a data set, in one error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mora_runtime.errors import DatasetError

_MAX_NUM_SHOWN = 20
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Fault:
    """A sample that cannot be used.

    Attributes:
        line: of the file that names it, from 1; of a folder, the number of the video by name.
        video: as the data set names it; empty if that is what is missing.
        text: what is wrong, without the name of the video.
        where: file and line, or the video, for messages.
    """

    line: int
    video: str
    text: str
    where: str = ""

    def __str__(self) -> str:
        names = [self.where] if self.where else []
        if self.video and not self.where.endswith(self.video):
            names.append(self.video)
        return ": ".join([*names, self.text])


def refuse(faults: Sequence[Fault], *, source: str, can_skip: bool = False) -> None:
    """Refuse a data set with these faults, each `file:line: what is wrong`; nothing if there are none.

    Args:
        can_skip: whether the user can leave them out.

    Raises:
        DatasetError: lists them.
    """
    if not faults:
        return
    hint = "; `--set data.skip_bad=true` trains without such samples" if can_skip else ""
    if len(faults) == 1:
        raise DatasetError(f"{faults[0]}{hint}")
    raise DatasetError(f"{source}: {len(faults)} samples cannot be used:\n{_listed(faults)}{hint}")


def tell_left_out(faults: Sequence[Fault], num_left: int, *, source: str, tell: Tell) -> None:
    """Say how many samples are left out, which, and how many there are without them.

    Raises:
        DatasetError: none are left.
    """
    if not faults:
        return
    if not num_left:
        raise DatasetError(f"{source}: none of its {len(faults)} samples can be used:\n{_listed(faults)}")
    tell(f"{source}: {len(faults)} of {len(faults) + num_left} samples are left out:\n{_listed(faults)}")


def _listed(faults: Sequence[Fault]) -> str:
    lines = [f"  {fault}" for fault in faults[:_MAX_NUM_SHOWN]]
    if len(faults) > _MAX_NUM_SHOWN:
        lines.append(f"  and {len(faults) - _MAX_NUM_SHOWN} more")
    return "\n".join(lines)
