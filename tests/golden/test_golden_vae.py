"""The autoencoder equals upstream's, in one piece and in tiles."""

from __future__ import annotations

import pytest
import reference
import torch
from mora_env_opensora.models import CausalVAEModel


@pytest.mark.parametrize("name", reference.case_names("vae_a"))
def test_encode_and_decode(name: str) -> None:
    golden = reference.read("vae_a")
    vae = CausalVAEModel.from_config(golden.meta["config"])
    vae.load_state_dict(golden.weights(), strict=True)
    case = golden.case(name)
    if case.args["tiling"]:
        vae.enable_tiling()
        for attribute, value in case.args["tiling"].items():
            assert hasattr(vae, attribute)
            setattr(vae, attribute, value)
    with torch.no_grad():
        posterior = vae.encode(case.inputs["x"])
        decoded = vae.decode(case.inputs["z"])
    reference.assert_equal_to(case.outputs["mean"], posterior.mean, "mean")
    reference.assert_equal_to(case.outputs["logvar"], posterior.logvar, "logvar")
    reference.assert_equal_to(case.outputs["decoded"], decoded, "decoded")
