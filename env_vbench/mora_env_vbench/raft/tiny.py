"""A RAFT of some ten thousand parameters with made weights, in the published format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mora_env_vbench.published_files import RAFT
from mora_env_vbench.raft.network import Raft
from mora_env_vbench.raft.sizes import RaftSizes
from mora_env_vbench.weights.made_file import shapes_of, write_made
from mora_env_vbench.weights.recipe import Recipe

_SIZES = RaftSizes(encoder=(8, 12, 16), features=32, hidden=16, context=16)


def tiny_raft(folder: Path) -> dict[str, Any]:
    """Write the model; returns options that load it."""
    write_made(folder / RAFT.name, shapes_of(lambda: Raft(_SIZES)), Recipe(seed=4), prefix="module.")
    return {"weights": str(folder)}
