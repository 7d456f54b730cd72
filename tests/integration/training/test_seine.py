"""`mora bench parity` for Stable Diffusion 3 and SEINE: every gradient has the bits of one process."""

from pathlib import Path

import pytest

from .parity import parity

TINY = "models/tiny/seine"
SEINE = f"""{{environment: svd, kind: seine, devices: [cpu], tiny_models: {TINY},
  options: {{model: {TINY}/unet, base: {TINY}/base, num_frames: 9, height: 64, width: 64, num_inference_steps: 4,
            sample_method: ddim, training_masks: [first1, onelast1]}},
  learning_rate: 1.0e-3, modulation_learning_rate: 1.0e-4}}"""


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_gradients_of_a_chain_that_ends_with_seine_are_bit_identical_to_one_process(tmp_path: Path) -> None:
    changes = [f"agents.video={SEINE}", "training.batch_size=4", "training.micro_batch_size=2", "data.num_clips=4"]
    found = parity(tmp_path, "configs/tiny.yaml", changes)
    assert found["bit_identical"] is True
    # an image transformer of 66 parameters, a video network of 240, two z
    assert found["num_parameters_compared"] == 66 + 240 + 2
    # all but the parts of SD3's last block that cannot reach the image
    assert found["num_with_nonzero_gradient"] == found["num_parameters_compared"] - 2
