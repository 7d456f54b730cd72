"""SDXL at the published sizes, without its weights: parameters, options, and what a plan counts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from mora_env_sd3.__main__ import KINDS
from mora_env_sd3.sdxl import published
from mora_env_sd3.sdxl.agent import SdxlAgent
from mora_env_sd3.sdxl.cost import sdxl_cost
from mora_env_sd3.sdxl.options import SdxlOptions
from mora_env_sd3.sdxl.sized_models import sized_renderer
from mora_env_sd3.unet.loading import scheduler_of
from mora_environment.cost import CostRequest
from mora_environment.cost_meter import measured_call
from mora_runtime.errors import CheckpointError, SettingsError
from mora_runtime.schema import read_settings

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
MODELS: dict[str, Any] = {"model": published.BASE, "refiner": published.REFINER, "height": 1024, "width": 1024}
# The published config.json of both UNets in full, but for names and versions.
_COMMON = {
    "act_fn": "silu", "addition_embed_type": "text_time", "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": 256, "center_input_sample": False, "class_embed_type": None,
    "class_embeddings_concat": False, "conv_in_kernel": 3, "conv_out_kernel": 3, "cross_attention_norm": None,
    "downsample_padding": 1, "dual_cross_attention": False, "encoder_hid_dim": None, "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2, "mid_block_only_cross_attention":
    None, "mid_block_scale_factor": 1, "mid_block_type": "UNetMidBlock2DCrossAttn", "norm_eps": 1e-05,
    "norm_num_groups": 32, "num_attention_heads": None, "num_class_embeds": None, "only_cross_attention": False,
    "out_channels": 4, "resnet_out_scale_factor": 1.0, "resnet_skip_time_act": False, "resnet_time_scale_shift":
    "default", "sample_size": 128, "time_cond_proj_dim": None, "time_embedding_act_fn": None,
    "time_embedding_dim": None, "time_embedding_type": "positional", "timestep_post_act": None, "upcast_attention":
    None, "use_linear_projection": True,
}  # fmt: skip
_BASE = _COMMON | {
    "attention_head_dim": [5, 10, 20], "block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "projection_class_embeddings_input_dim": 2816, "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
}  # fmt: skip
_REFINER = _COMMON | {
    "attention_head_dim": [6, 12, 24, 24], "block_out_channels": [384, 768, 1536, 1536], "cross_attention_dim": 1280,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "projection_class_embeddings_input_dim": 2560, "transformer_layers_per_block": 4,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
}  # fmt: skip


def shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def test_our_models_have_the_keys_and_shapes_of_the_published_ones() -> None:
    renderer = sized_renderer(SdxlOptions(**MODELS), torch.device("meta"))
    assert renderer._refiner is not None
    with torch.device("meta"):
        for made, config, model in (
            (renderer.base.unet, _BASE, published.BASE),
            (renderer._refiner.unet, _REFINER, published.REFINER),
        ):
            assert shapes(made) == shapes(UNet2DConditionModel.from_config(config))
            assert sum(each.numel() for each in made.parameters()) == published.NUM_PARAMETERS[model]["unet"]
    vae = renderer.autoencoder.vae
    assert isinstance(vae, AutoencoderKL)
    assert sum(each.numel() for each in vae.parameters()) == published.NUM_PARAMETERS[published.BASE]["vae"]
    assert vae.dtype == torch.float32
    assert (len(shapes(renderer.base.unet)), published.NUM_PARAMETERS[published.BASE]["unet"]) == (1680, 2_567_463_684)


def test_options_tell_all_models_and_files() -> None:
    options = SdxlOptions(**MODELS, dtype="bfloat16")
    told = {each.name: (each.dtype_nbytes, each.trainable, each.is_unloaded) for each in options.components()}
    assert told == {
        "unet": (2, True, False),
        "vae": (4, False, False),  # float32 whatever the dtype
        "text_encoder": (2, False, True),
        "text_encoder_2": (2, False, True),
        "refiner": (2, False, False),
    }
    files = {(each.name, each.subfolder) for each in options.weights_sources()}
    parts = ("", "scheduler", "unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    assert files == {(published.BASE, part) for part in parts} | {
        (published.REFINER, part) for part in ("", "scheduler", "unet")
    }


def test_checking_options_imports_no_model_library() -> None:
    code = "import sys, mora_env_sd3.__main__; print([name for name in ('torch', 'diffusers') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gradient_steps": 51}, "must be between 1 and num_inference_steps 50"),
        ({"high_noise_share": 1.0}, "high_noise_share"),
        ({"height": 1020}, "multiple of 8"),
        ({"refinr": "x"}, "did you mean `refiner`"),
        ({"original_size": [1024]}, "original_size"),
    ],
)
def test_wrong_options_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        read_settings(KINDS["sdxl"].options, {**MODELS, **changes}, source="options")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"_class_name": "FlowMatchEulerDiscreteScheduler"},
            "expected one of .*EulerDiscreteScheduler.* as _class_name",
        ),
        ({"prediction_type": "v_prediction"}, "expected prediction_type `epsilon`, got `v_prediction`"),
    ],
)
def test_a_scheduler_that_the_model_cannot_use_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        scheduler_of({**published.SCHEDULER, **changes}, "models/x")


def test_a_folder_that_is_no_refiner_is_refused(xl_options: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="expected force_zeros_for_empty_prompt false in a refiner"):
        SdxlAgent(SdxlOptions(**xl_options, refiner=xl_options["model"]), torch.device("cpu"))


def test_a_refiner_that_takes_every_step_is_refused(xl_options: dict[str, Any], refiner: Path) -> None:
    with pytest.raises(SettingsError, match=r"leaves the base model one of 3 steps at least, got 0\.05"):
        SdxlAgent(SdxlOptions(**xl_options, refiner=str(refiner), high_noise_share=0.05), torch.device("cpu"))


def test_a_plan_counts_what_the_real_call_costs(xl_options: dict[str, Any], xl_agent: SdxlAgent) -> None:
    keys = xl_agent.encode(["a red circle"])["keys"]
    width = xl_agent.modulation_rows("[Mod]", False)["rows"].shape[1]
    z = torch.zeros(4, width, requires_grad=True)

    def images() -> torch.Tensor:
        made: torch.Tensor = xl_agent.forward(z, keys, [0])["images"]
        return made

    planned = sdxl_cost(SdxlOptions(**xl_options), CostRequest(num_rows=4))
    real = measured_call(images, modules=[xl_agent.module()], with_backward=True)
    for which in ("graph_nbytes", "forward_nbytes", "backward_nbytes"):  # attention keeps other tensors on the CPU
        assert getattr(planned.step, which) == pytest.approx(getattr(real, which), rel=0.15), which
    for name in ("matmul_float32", "convolution_float32"):
        assert getattr(planned.step.forward, name) == pytest.approx(getattr(real.forward, name), rel=0.02), name
    assert planned.num_trained == sum(each.numel() for each in xl_agent.module().parameters())


def test_steps_without_gradient_and_the_refiner_s_steps_count_in_the_work(
    xl_options: dict[str, Any], refiner: Path
) -> None:
    # of four steps, the last is the refiner's, and two of the base model's have no gradient
    changes = {"refiner": str(refiner), "high_noise_share": 0.9, "num_inference_steps": 4, "gradient_steps": 1}
    cost = sdxl_cost(SdxlOptions(**{**xl_options, **changes, "guidance_scale": 1.0}), CostRequest(num_rows=4))
    assert cost.step.forward.matmul_float32 == cost.sample.forward.matmul_float32, "every step counts in both"
    assert cost.step.forward.convolution_float32 == cost.sample.forward.convolution_float32


def test_the_tiny_folder_has_the_published_layout(xl_options: dict[str, Any]) -> None:
    folder = Path(xl_options["model"])
    index = json.loads((folder / "model_index.json").read_text())
    assert index["force_zeros_for_empty_prompt"] is True
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {
        "unet", "vae", "scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"
    }  # fmt: skip
