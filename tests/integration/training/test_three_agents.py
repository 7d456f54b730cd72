"""`mora bench parity` for three agents in three processes: every gradient has the bits of one process."""

from pathlib import Path

import pytest

from .parity import parity

RECOMPUTE = [f"agents.{name}.recompute=true" for name in ("image", "refine", "video")]
FOUR_IN_FLIGHT = ["training.micro_batch_size=1", "training.pipeline.max_in_flight=4"]
INPUTS_FIRST = ["training.pipeline.inputs_first=true"]

pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param([*FOUR_IN_FLIGHT, *INPUTS_FIRST, "agents.refine.recompute=true"], id="all together"),
        pytest.param([], id="as configured", marks=pytest.mark.long),
        pytest.param(RECOMPUTE, id="recompute", marks=pytest.mark.long),
        pytest.param(INPUTS_FIRST, id="inputs first", marks=pytest.mark.long),
        pytest.param(FOUR_IN_FLIGHT, id="four in flight", marks=pytest.mark.long),
    ],
)
def test_the_gradients_of_three_agents_are_bit_identical_to_one_process(changes: list[str], tmp_path: Path) -> None:
    found = parity(tmp_path, "configs/three-agents.yaml", changes)
    assert found["bit_identical"] is True
    assert found["agents"] == ["image", "refine", "video"]
    assert found["max_abs_grad_diff"] == 0.0
    # two image transformers of 66 parameters, a video transformer of 63, three z
    assert found["num_parameters_compared"] == 66 + 66 + 63 + 3
    # all but the parts of each SD3's last block that cannot reach the image
    assert found["num_with_nonzero_gradient"] == found["num_parameters_compared"] - 4
