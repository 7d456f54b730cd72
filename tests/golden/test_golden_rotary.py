"""The rotary embedding equals upstream's, in bfloat16 bit for bit."""

from __future__ import annotations

import pytest
import reference
import torch
from mora_env_opensora.models.rotary import rotary_angles, rotary_tables, rotate


@pytest.mark.parametrize("name", reference.case_names("rope"))
def test_rotated_tokens(name: str) -> None:
    case = reference.read("rope").case(name)
    tokens = case.inputs["tokens"]
    angles = rotary_angles(tuple(case.args["thw"]), tuple(case.args["scale_thw"]), tokens.shape[-1], "cpu")
    rotated = rotate(tokens, *rotary_tables(angles, tokens.dtype))
    assert rotated.dtype == tokens.dtype
    if tokens.dtype == torch.bfloat16:
        assert torch.equal(rotated, case.outputs["rotated"])
    reference.assert_equal_to(case.outputs["rotated"], rotated, "rotated")
