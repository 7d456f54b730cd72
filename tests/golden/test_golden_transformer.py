"""The transformers equal upstream's, outputs and gradients."""

from __future__ import annotations

import pytest
import reference
from mora_env_opensora.models import OpenSoraInpaint, OpenSoraT2V
from reference import assert_equal_to

FILES = {
    "dit_a": OpenSoraT2V,
    "dit_b_interp": OpenSoraT2V,
    "dit_c_abspos": OpenSoraT2V,
    "dit_d_eps": OpenSoraT2V,
    "inpaint_a": OpenSoraInpaint,
}
CASES = [(file, case) for file in FILES for case in reference.case_names(file)]


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize(("file", "name"), CASES)
def test_output_and_input_gradients(file: str, name: str, checkpointing: bool) -> None:
    golden = reference.read(file)
    model = FILES[file].from_config(golden.meta["config"])
    model.load_state_dict(golden.weights(), strict=True)
    model.gradient_checkpointing = checkpointing
    case = golden.case(name)
    inputs = dict(case.inputs)
    latents = inputs.pop("hidden_states").requires_grad_()
    text = inputs.pop("encoder_hidden_states").requires_grad_()
    output = model(
        latents,
        inputs["timestep"],
        text,
        attention_mask=inputs["attention_mask"],
        encoder_attention_mask=inputs["encoder_attention_mask"],
        use_image_num=case.args["use_image_num"],
    )
    assert_equal_to(case.outputs["output"], output, "output")
    (output * inputs["probe"]).sum().backward()
    assert_equal_to(case.outputs["grad_hidden_states"], latents.grad, "gradient of hidden_states")
    assert_equal_to(case.outputs["grad_encoder_hidden_states"], text.grad, "gradient of encoder_hidden_states")
