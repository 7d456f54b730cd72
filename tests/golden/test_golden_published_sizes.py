"""At the published sizes every key and shape equals that of the published checkpoints."""

from __future__ import annotations

import re

import pytest
import reference
import torch
from mora_env_opensora.models import CausalVAEModel, OpenSoraInpaint, OpenSoraT2V

MODELS = {"dit": (OpenSoraT2V, 687), "inpaint": (OpenSoraInpaint, 693), "vae": (CausalVAEModel, 248)}


@pytest.mark.parametrize("name", MODELS)
def test_keys_and_shapes(name: str) -> None:
    published = reference.read_meta("published_state_dicts")["models"][name]
    kind, tensors = MODELS[name]
    with torch.device("meta"):
        model = kind.from_config(published["config"])
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert len(shapes) == tensors
    assert shapes == _expanded(published["keys"])
    assert sum(value.numel() for value in model.state_dict().values()) == published["n_params"]


def _expanded(keys: dict[str, list[int]]) -> dict[str, list[int]]:
    """Expand `a.{0..31}.b` to a.0.b, ..., a.31.b."""
    expanded = {}
    for key, shape in keys.items():
        if span := re.search(r"\{(\d+)\.\.(\d+)\}", key):
            first, last = map(int, span.groups())
            expanded |= {key.replace(span.group(), str(index)): shape for index in range(first, last + 1)}
        else:
            expanded[key] = shape
    return expanded
