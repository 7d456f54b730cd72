"""Cases of the recipe: made weights and clips."""

from __future__ import annotations

import hashlib

from mora_env_vbench.goldens.case_file import Case, CaseFile
from mora_env_vbench.goldens.comparison import Differences
from mora_env_vbench.weights.recipe import Recipe, made_clip

TOLERANCE = 0.0
_SCALARS = ("logit_scale", "num_batches_tracked")  # stored with one element, made without dimensions


def check_recipe(file: CaseFile, case: Case, found: Differences) -> None:
    """Compare one case."""
    if case.outputs:
        shapes = {name: () if name.endswith(_SCALARS) else tuple(tensor.shape) for name, tensor in case.outputs.items()}
        made = Recipe(case.args["seed"]).made(shapes)
        for name, reference in case.outputs.items():
            found.add(made[name].reshape(reference.shape), reference)
    for told in case.values or []:
        content = made_clip(**told["args"]).numpy().tobytes()
        found.add(hashlib.sha256(content).hexdigest(), told["sha256"])
