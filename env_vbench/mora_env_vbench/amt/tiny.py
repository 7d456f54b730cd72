"""An AMT of some ten thousand parameters with made weights, in the published format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mora_env_vbench.amt.network import Amt
from mora_env_vbench.amt.sizes import AmtSizes, UpdateSizes
from mora_env_vbench.published_files import AMT
from mora_env_vbench.weights.made_file import shapes_of, write_made
from mora_env_vbench.weights.recipe import Recipe

_SIZES = AmtSizes(
    encoder=(8, 12, 16),
    features=12,
    pyramid=(8, 10, 12, 14),
    side=4,
    update=UpdateSizes(correlation=16, flow=8, joint=20, hidden=16),
)


def tiny_amt(folder: Path) -> dict[str, Any]:
    """Write the model; returns options that load it."""
    recipe = Recipe(seed=3, one_d_weight=(0.25, 0.05), gain=0.7)
    write_made(folder / AMT.name, shapes_of(lambda: Amt(_SIZES)), recipe, within="state_dict")
    return {"weights": str(folder)}
