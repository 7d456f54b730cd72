"""The names and shapes of the tensors in published files, compared with the networks that load them."""

from __future__ import annotations

from collections.abc import Iterator

from mora_env_vbench.goldens.case_file import CaseFile
from mora_env_vbench.goldens.comparison import Differences
from mora_env_vbench.goldens.published_networks import LAYOUTS

TOLERANCE = 0.0


def layout_names(file: CaseFile) -> Iterator[str]:
    """The published files in it that this package loads."""
    return (name for name in file.meta["files"] if name in LAYOUTS)


def check_layout(file: CaseFile, name: str, found: Differences) -> None:
    """Compare one published file."""
    told = file.meta["files"][name]["keys"]
    ours = {key: list(shape) for key, shape in LAYOUTS[name].shapes().items()}
    found.add(sorted(ours.keys() ^ told.keys()) == [], True)
    for key, shape in told.items():
        found.add(ours.get(key, [-1]), shape)
