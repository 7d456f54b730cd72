"""SEINE equals upstream on the reference tensors: UNet, its parts, diffusion, masks, sampling and text encoder."""

from __future__ import annotations

import pytest
import reference
import torch
from mora_env_svd.seine.models import SeineUNet
from mora_env_svd.seine.reference_check import Difference, ReferenceFile, check_file

FILES = (
    "seine_unet_a",
    "seine_unet_b",
    "seine_blocks",
    "seine_diffusion",
    "seine_masks",
    "seine_sample",
    "seine_text",
    "seine_published_state_dict",
)


@pytest.mark.filterwarnings("ignore::UserWarning:transformers.*")
@pytest.mark.parametrize("name", FILES)
def test_every_value_of_every_case_is_within_its_tolerance(name: str) -> None:
    file = ReferenceFile(reference.find_file(f"{name}.json"))
    outcome = check_file(file)
    wrong = [
        f"{case} {value}: {difference}"
        for case, values in outcome.items()
        for value, difference in values.items()
        if not isinstance(difference, Difference) or not difference.ok
    ]
    assert not wrong
    assert all(outcome.values()), "a case has no value"
    assert set(outcome) == {case["name"] for case in file.meta.get("cases", [{"name": "keys and shapes"}])}


def test_the_published_network_has_830_tensors_of_which_the_frequencies_do_not_train() -> None:
    meta = reference.read_meta("seine_published_state_dict")
    with torch.device("meta"):
        model = SeineUNet.from_config(meta["config"])
    state = model.state_dict()
    assert len(state) == meta["tensors"] == 830
    assert sum(tensor.numel() for tensor in state.values()) == 909_138_756
    fixed = state.keys() - dict(model.named_parameters()).keys()
    assert len(fixed) == 16
    assert all(name.endswith("attn_temp.rotary_emb.freqs") for name in fixed)
