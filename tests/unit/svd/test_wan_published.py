"""The published sizes: keys, shapes and numbers of parameters, what the options know of them, and what they cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from mora_env_svd.wan.agent import WanAgent, wan_agent
from mora_env_svd.wan.cost import sized_models, wan_cost
from mora_env_svd.wan.options import WanOptions
from mora_env_svd.wan.published import CONFIGS, FLF2V_720P, I2V_480P, I2V_720P, I2V_A14B, NUM_PARAMETERS, TI2V_5B
from mora_environment.cost import CostRequest
from mora_environment.cost_meter import measured_call
from mora_runtime.errors import SettingsError
from mora_training.training_settings import TrainableSettings
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

_I2V = {"image_dim": 1280, "added_kv_proj_dim": 5120, "in_channels": 36}
# What differs from the defaults of diffusers, whose class is Wan 2.1's 14B text-to-video model.
FROM_DEFAULTS: dict[str, dict[str, Any]] = {
    I2V_480P: _I2V,
    I2V_720P: _I2V,
    FLF2V_720P: _I2V | {"pos_embed_seq_len": 514},
    I2V_A14B: {"in_channels": 36},
    TI2V_5B: {"num_attention_heads": 24, "num_layers": 30, "ffn_dim": 14336, "in_channels": 48, "out_channels": 48},
}


def shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def config_of(model: WanTransformer3DModel) -> dict[str, Any]:
    config = {name: value for name, value in model.config.items() if not name.startswith("_")}
    return config | {"patch_size": list(config["patch_size"])}


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", list(CONFIGS))
def test_the_trained_model_has_the_published_keys_and_shapes(name: str) -> None:
    side = {"height": 480, "width": 832} if name == I2V_480P else {"height": 704, "width": 1280}
    models = sized_models(WanOptions(model=name, dtype="bfloat16", **side))
    with torch.device("meta"):
        expected = WanTransformer3DModel(**FROM_DEFAULTS[name])
    assert shapes(models.denoiser.model) == shapes(expected)
    assert config_of(models.denoiser.model) == config_of(expected)
    assert count(models.denoiser.model) == NUM_PARAMETERS[name]["transformer"]
    assert count(models.coder._vae) == NUM_PARAMETERS[name]["vae"]
    assert models.layout.replaces_first == (name == TI2V_5B)
    assert models.conditioner.size.latent_shape[:2] == ((48 if name == TI2V_5B else 16), 21)


def test_encoders_and_autoencoders_have_the_published_numbers_of_parameters() -> None:
    counts = NUM_PARAMETERS[I2V_480P]
    with torch.device("meta"):
        assert count(UMT5EncoderModel(UMT5Config(**CONFIGS[I2V_480P]["text_encoder"]))) == counts["text_encoder"]
        assert count(CLIPVisionModel(CLIPVisionConfig(**CONFIGS[I2V_480P]["image_encoder"]))) == counts["image_encoder"]
        ours = AutoencoderKLWan.from_config(CONFIGS[I2V_480P]["vae"])
        default = AutoencoderKLWan()
    assert shapes(ours) == shapes(default)
    assert ours.config.latents_mean == default.config.latents_mean
    vae = CONFIGS[TI2V_5B]["vae"]
    assert len(vae["latents_mean"]) == len(vae["latents_std"]) == vae["z_dim"] == 48


def test_published_names_are_known_before_they_are_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for name in CONFIGS:
        options = WanOptions(model=name, height=704, width=1280)
        assert {each.name: each.num_parameters for each in options.components()} == NUM_PARAMETERS[name]
        folders = {source.subfolder for source in options.weights_sources()}
        assert folders >= {"", "tokenizer", "scheduler", "transformer", "vae", "text_encoder"}
        assert ({"image_encoder", "image_processor"} <= folders) == ("Wan2.1" in name)
        assert ("transformer_2" in folders) == (name == I2V_A14B)
    with pytest.raises(SettingsError, match=f"did you mean the Hub id `{TI2V_5B}`"):
        WanOptions(model="Wan-AI/Wan2.2-TI2V-5B-Difusers", height=704, width=1280).components()
    with pytest.raises(ValueError, match="height: expected a multiple of 32"):
        WanOptions(model=TI2V_5B, height=720, width=1280)


def test_a_download_that_has_only_begun_changes_no_layout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for name in (TI2V_5B, "someone/wan"):
        repository = tmp_path / f"models--{name.replace('/', '--')}"
        snapshot = repository / "snapshots" / ("a" * 40)
        snapshot.mkdir(parents=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("a" * 40)
        (snapshot / "model_index.json").write_text('{"expand_timesteps": true}')
    layout = WanOptions(model=TI2V_5B, height=704, width=1280).layout()
    assert layout is not None
    assert layout.latent_channels == 48
    assert WanOptions(model="someone/wan", height=704, width=1280).layout() is None


@pytest.fixture(scope="module")
def small(tiny_wan_folder: Path) -> dict[str, Any]:
    return {
        "num_frames": 5, "height": 32, "width": 32, "max_sequence_length": 8, "num_inference_steps": 2,
        "gradient_steps": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("layout", "has_loss", "checkpointing"),
    [
        ("i2v", True, True),
        pytest.param("ti2v", True, False, marks=pytest.mark.long),
        pytest.param("i2v", False, False, marks=pytest.mark.long),
        pytest.param("ti2v", False, True, marks=pytest.mark.long),
    ],
)
def test_memory_and_operations_are_those_of_the_real_call(
    tiny_wan_folder: Path, small: dict[str, Any], layout: str, has_loss: bool, checkpointing: bool
) -> None:
    options = WanOptions(model=str(tiny_wan_folder / layout), gradient_checkpointing=checkpointing, **small)
    planned = wan_cost(options, CostRequest(has_loss=has_loss, num_rows=4)).step
    agent = wan_agent(options, torch.device("cpu"))
    assert isinstance(agent, WanAgent)
    keys = agent.encode(["a word"])["keys"]
    target = agent.store_target(torch.zeros(5, 32, 32, 3, dtype=torch.uint8))["key"]
    z, images = torch.zeros(4, 32, requires_grad=True), torch.zeros(1, 3, 32, 32, requires_grad=True)

    def call() -> torch.Tensor:
        if has_loss:
            loss: torch.Tensor = agent.loss(z, keys, images, [target], [0])["loss"]
            return loss
        frames: torch.Tensor = agent.forward(z, keys, [0], images)["frames"]
        return frames.sum()

    call()  # the first call also fills what later ones reuse
    real = measured_call(call, modules=[agent.module()], with_backward=True)
    for which in ("graph_nbytes", "forward_nbytes", "backward_nbytes"):
        assert getattr(planned, which) == pytest.approx(getattr(real, which), rel=0.15), which
    for name in ("matmul_float32", "convolution_float32"):
        for part in ("forward", "backward"):
            expected = getattr(getattr(real, part), name)
            assert getattr(getattr(planned, part), name) == pytest.approx(expected, rel=0.05), f"{part} {name}"


@pytest.mark.long
def test_the_published_size_is_counted_without_weights() -> None:
    options = WanOptions(model=TI2V_5B, height=704, width=1280, num_frames=49, dtype="bfloat16",
                         gradient_checkpointing=True)  # fmt: skip
    cost = wan_cost(options, CostRequest(has_loss=True))
    assert cost.num_trained == NUM_PARAMETERS[TI2V_5B]["transformer"]
    step, sample = cost.step, cost.sample.forward
    both = sum(work.matmul + work.attention for work in (step.forward, step.backward))
    one_way = step.forward.matmul + step.forward.attention
    assert both == pytest.approx(4 * one_way, rel=0.05), "forward twice, and its gradients in inputs and parameters"
    assert sample.matmul == pytest.approx(50 * 2 * step.forward.matmul, rel=0.02), "50 steps with guidance"


def test_adapters_and_a_frozen_agent_have_few_gradients(tiny_wan_folder: Path, small: dict[str, Any]) -> None:
    options = WanOptions(model=str(tiny_wan_folder / "i2v"), **small)
    whole = next(component for component in options.components() if component.name == "transformer").num_parameters
    lora = TrainableSettings(scope="lora", lora_rank=2)
    assert 0 < wan_cost(options, CostRequest(has_loss=True, trainable=lora)).num_trained < whole / 4
    frozen = TrainableSettings(scope="none")
    first = wan_cost(options, CostRequest(has_loss=True, trainable=frozen, passes_gradient=False))
    assert first.num_trained == 0
    assert first.step.backward.num_operations == 0
