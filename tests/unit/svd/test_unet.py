"""The UNet: configs that are refused, precision, recomputation, frames that see each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mora_env_svd.errors import ConfigError, InputError, WeightsFileError
from mora_env_svd.seine.models import SeineConfig, SeineUNet
from mora_env_svd.seine.models.temporal_attention import RotaryEmbedding, rotary_frequencies
from mora_env_svd.seine.weights.weights_folder import load_unet, save_unet
from torch import Tensor

CONFIG: dict[str, Any] = {
    "down_block_types": ["CrossAttnDownBlock3D", "DownBlock3D"],
    "up_block_types": ["UpBlock3D", "CrossAttnUpBlock3D"],
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 16,
    "attention_head_dim": [1, 2],
}


@pytest.fixture
def model() -> SeineUNet:
    torch.manual_seed(0)
    made = SeineUNet.from_config(CONFIG)
    for name, parameter in made.named_parameters():
        if name.endswith("attn_temp.to_out.0.weight"):
            torch.nn.init.normal_(parameter, std=0.2)
    return made


def inputs(num_frames: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(2, 9, num_frames, 6, 4, generator=generator)
    return sample, torch.tensor([500, 3]), torch.randn(2, 7, 16, generator=generator)


def test_the_published_config_is_the_default() -> None:
    assert SeineConfig.parse({}) == SeineConfig()
    assert SeineConfig.parse(SeineConfig().to_dict()) == SeineConfig()
    assert SeineConfig.parse({"sample_size": 64, "_class_name": "UNet3DConditionModel", "unknown": 1}) == SeineConfig()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"flip_sin_to_cos": False}, "flip_sin_to_cos"),
        ({"freq_shift": 1}, "freq_shift"),
        ({"act_fn": "gelu"}, "act_fn"),
        ({"use_linear_projection": True}, "use_linear_projection"),
        ({"use_relative_position": True}, "use_relative_position"),
        ({"down_block_types": ["DownBlock2D", "DownBlock3D"]}, "down_block_types"),
        ({"up_block_types": ["UpBlock3D"]}, "up_block_types"),
        ({"attention_head_dim": [1, 2, 2]}, "attention_head_dim"),
        ({"attention_head_dim": 2}, "2 heads .* on 32 channels"),
        ({"norm_num_groups": 12}, "norm_num_groups"),
        ({"layers_per_block": 0}, "layers_per_block"),
        ({"block_out_channels": []}, "block_out_channels"),
        ({"norm_eps": 0.0}, "norm_eps"),
    ],
)
def test_a_config_of_another_network_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        SeineUNet.from_config(CONFIG | changes)


def test_recomputing_activations_changes_no_bit(model: SeineUNet) -> None:
    sample, timestep, text = inputs()
    outputs, gradients = [], []
    for recomputes in (False, True):
        model.gradient_checkpointing = recomputes
        model.zero_grad()
        leaf = sample.clone().requires_grad_()
        output = model(leaf, timestep, text)
        output.square().sum().backward()
        outputs.append(output.detach())
        gradients.append([leaf.grad, *(parameter.grad for parameter in model.parameters())])
    assert torch.equal(*outputs)
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))


def test_frames_see_each_other_and_their_order(model: SeineUNet) -> None:
    sample, timestep, text = inputs()
    with torch.no_grad():
        output = model(sample, timestep, text)
        backwards = model(sample.flip(2), timestep, text).flip(2)
        changed = sample.clone()
        changed[:, :, 2] += 1.0
        of_first_frame = model(changed, timestep, text)[:, :, 0]
    assert (output - backwards).abs().max() > 1e-4
    assert (output[:, :, 0] - of_first_frame).abs().max() > 1e-4


def test_a_sample_is_the_same_in_a_batch(model: SeineUNet) -> None:
    sample, timestep, text = inputs()
    with torch.no_grad():
        together = model(sample, timestep, text)
        alone = torch.cat([model(sample[i : i + 1], timestep[i], text[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(together, alone, rtol=0.0, atol=1e-5)


def test_frequencies_stay_float32_in_half_precision() -> None:
    rotary = RotaryEmbedding().to(torch.bfloat16)
    assert torch.equal(rotary.freqs, rotary_frequencies())
    assert RotaryEmbedding().to("meta").freqs.is_meta


def test_half_precision_is_near_float32(model: SeineUNet) -> None:
    sample, timestep, text = inputs()
    with torch.no_grad():
        reference = model(sample, timestep, text)
        half = model.to(torch.bfloat16)(sample.bfloat16(), timestep, text.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half.float() - reference).abs().max() < 0.1 * reference.abs().max()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sample": torch.zeros(2, 8, 3, 6, 4)}, "sample: expected"),
        ({"text": torch.zeros(2, 7, 15)}, "encoder_hidden_states: expected"),
        ({"timestep": torch.zeros(3, dtype=torch.long)}, "timestep: expected"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused_by_name(model: SeineUNet, changes: dict[str, Tensor], named: str) -> None:
    sample, timestep, text = inputs()
    with pytest.raises(InputError, match=named):
        model(*({"sample": sample, "timestep": timestep, "text": text} | changes).values())


def test_a_saved_folder_loads_to_the_same_network(model: SeineUNet, tmp_path: Path) -> None:
    save_unet(model, tmp_path / "unet")
    loaded = load_unet(tmp_path / "unet")
    assert loaded.config == model.config
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    halved = load_unet(tmp_path / "unet", dtype=torch.bfloat16)
    assert halved.dtype == torch.bfloat16
    assert all(buffer.dtype == torch.float32 for buffer in halved.buffers())


def test_weights_that_do_not_fit_are_listed_and_nothing_is_loaded(model: SeineUNet, tmp_path: Path) -> None:
    from mora_env_svd.seine.weights.weights_folder import write_folder

    state = dict(model.state_dict())
    state["conv_in.bias"] = torch.zeros(3)
    state["conv_out.bias"] = torch.full((4,), torch.nan)
    state["extra"] = torch.zeros(1)
    del state["conv_in.weight"]
    write_folder(tmp_path, model.config_json(), state)
    with pytest.raises(WeightsFileError) as refused:
        load_unet(tmp_path)
    for told in ("1 missing: conv_in.weight", "1 unexpected: extra", "conv_in.bias (expected (32,), got (3,))",
                 "1 not finite: conv_out.bias"):  # fmt: skip
        assert told in str(refused.value)
    with pytest.raises(WeightsFileError, match=r"expected config\.json and diffusion_pytorch_model\.safetensors"):
        load_unet(tmp_path / "nothing")
