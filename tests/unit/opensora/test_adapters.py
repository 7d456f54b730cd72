"""LoRA adapters of the video agent travel as a folder of peft and as merged weights; diffusers has no pipeline."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mora_env_opensora.__main__ import KINDS
from mora_env_opensora.agent import OpenSoraAgent
from mora_env_opensora.models import OpenSoraInpaint
from mora_env_opensora.options import OpenSoraOptions
from mora_environment.adapters.adapter_agent import AdapterAgent
from mora_environment.adapters.export_command import answer_export
from mora_runtime.errors import SettingsError
from mora_runtime.rpc.server_settings import AllowedAdapters
from mora_training.adapters import adapter_tensors, inject_adapters, load_adapters
from mora_training.training_settings import ADAPTER_FILE, TrainableSettings
from safetensors.torch import save_file

MOST_PIXELS_FROM_MERGED = 1  # of 255: the sums of merged weights are rounded in another order
TRAINABLE = TrainableSettings(scope="lora", lora_rank=2, lora_alpha=7.0)


@pytest.fixture
def options(tiny: Path) -> OpenSoraOptions:
    return OpenSoraOptions(
        model=str(tiny / "transformer_i2v"), vae=str(tiny / "vae"), text_encoder=str(tiny / "text_encoder"),
        num_frames=9, height=32, width=32, max_length=32, num_inference_steps=4, guidance_scale=3.0,
    )  # fmt: skip


@pytest.fixture
def adapted(options: OpenSoraOptions, tmp_path: Path) -> tuple[OpenSoraInpaint, Path]:
    """A model with adapters that change it, and the folder that a checkpoint has of them."""
    model = OpenSoraInpaint.from_pretrained(options.model)
    inject_adapters(model, TRAINABLE)
    generator = torch.Generator().manual_seed(1)
    tensors = adapter_tensors(model)
    with torch.no_grad():
        for tensor in tensors.values():
            tensor.copy_(0.2 * torch.randn(tensor.shape, generator=generator))
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / ADAPTER_FILE)
    (folder / "config.json").write_text(json.dumps(TRAINABLE.model_dump()))
    return model, folder


def answered(options: OpenSoraOptions, folder: Path, target: Path, chosen: str) -> dict[str, Any]:
    target.mkdir()
    request = {
        "kind": "opensora", "options": options.model_dump(mode="json"), "source": "agents.video", "weights": None,
        "format": chosen, "folder": str(folder), "target": str(target),
    }  # fmt: skip
    return answer_export(KINDS, "mora_env_opensora", request)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What the layers of a model compute with: W + alpha / r * B A, and everything else as it is."""
    found = {}
    for name, layer in model.named_modules():
        if hasattr(layer, "get_delta_weight"):
            found[f"{name}.weight"] = layer.get_base_layer().weight + layer.get_delta_weight("default")
    return found


def check_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_misspelled_target_is_refused_by_the_real_model(options: OpenSoraOptions) -> None:
    model = OpenSoraInpaint.from_pretrained(options.model)
    with pytest.raises(SettingsError, match="`to_kk` matches no layer of this model; the nearest name is `to_k`"):
        inject_adapters(model, TrainableSettings(scope="lora", lora_targets=("to_q", "to_kk")))


def test_a_loaded_agent_computes_with_the_same_weights(
    options: OpenSoraOptions, adapted: tuple[OpenSoraInpaint, Path]
) -> None:
    model, folder = adapted
    agent = OpenSoraAgent.from_options(options, torch.device("cpu"))
    load_adapters(agent.module(), folder)
    check_equal(weights(agent.module()), weights(model))


def test_peft_loads_the_exported_folder(
    options: OpenSoraOptions, adapted: tuple[OpenSoraInpaint, Path], tmp_path: Path
) -> None:
    from peft import PeftModel

    model, folder = adapted
    assert "error" not in answered(options, folder, tmp_path / "video", "peft")
    loaded = PeftModel.from_pretrained(OpenSoraInpaint.from_pretrained(options.model), str(tmp_path / "video"))
    check_equal(weights(loaded.base_model.model), weights(model))


def test_merged_weights_load_strictly(
    options: OpenSoraOptions, adapted: tuple[OpenSoraInpaint, Path], tmp_path: Path
) -> None:
    model, folder = adapted
    assert "error" not in answered(options, folder, tmp_path / "video", "merged")
    merged = OpenSoraInpaint.from_pretrained(tmp_path / "video").state_dict()
    for name, expected in weights(model).items():
        assert torch.allclose(merged[name], expected, atol=1e-6)


def test_adapters_for_a_single_call_make_the_clip_of_an_agent_that_loaded_them(
    options: OpenSoraOptions, adapted: tuple[OpenSoraInpaint, Path], tmp_path: Path
) -> None:
    _, folder = adapted

    def clip(agent: OpenSoraAgent) -> torch.Tensor:
        frame = torch.full((1, 32, 32, 3), 90, dtype=torch.uint8)
        made: torch.Tensor = agent.image_to_video(["a cat"], [5], frame)["outputs"].clone()
        return made

    agent = OpenSoraAgent.from_options(options, torch.device("cpu"))
    plain = clip(agent)
    content = (folder / ADAPTER_FILE).read_bytes()
    choice = AllowedAdapters(
        name="ink", file=str(folder / ADAPTER_FILE), nbytes=len(content), sha256=hashlib.sha256(content).hexdigest(),
        alpha=TRAINABLE.lora_alpha,
    )  # fmt: skip
    switch = AdapterAgent(agent.module(), [choice])
    switch.use("ink", 1.0)
    changed = clip(agent)
    switch.use(None, 1.0)
    assert torch.equal(clip(agent), plain)
    loaded = OpenSoraAgent.from_options(options, torch.device("cpu"))
    load_adapters(loaded.module(), folder)
    assert torch.equal(changed, clip(loaded))
    assert not torch.equal(changed, plain)
    assert "error" not in answered(options, folder, tmp_path / "video", "merged")
    merged = OpenSoraAgent.from_options(
        options.model_copy(update={"model": str(tmp_path / "video")}), torch.device("cpu")
    )
    assert (clip(merged).int() - changed.int()).abs().max() <= MOST_PIXELS_FROM_MERGED


def test_diffusers_is_refused_by_name(
    options: OpenSoraOptions, adapted: tuple[OpenSoraInpaint, Path], tmp_path: Path
) -> None:
    error = answered(options, adapted[1], tmp_path / "video", "diffusers-lora")["error"]
    assert "agents.video: kind `opensora` has no pipeline in diffusers" in error
    assert "expected the format `peft` or `merged`" in error
    assert not list((tmp_path / "video").iterdir())
