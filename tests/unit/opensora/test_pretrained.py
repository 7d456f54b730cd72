"""Checkpoints load whole or not at all, and survive saving bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mora_env_opensora.models import CausalVAEModel, ConfigError, OpenSoraInpaint, OpenSoraT2V, WeightsFileError
from mora_env_opensora.models.checkpoint_files import INDEX_NAME, WEIGHTS_NAME
from mora_env_opensora.tiny import TRANSFORMER_CONFIG
from safetensors.torch import load_file, save_file

# Full depth and heads of the published model, so every published key is there; tiny widths.
FULL_KEYS = TRANSFORMER_CONFIG | {
    "num_layers": 32,
    "num_attention_heads": 2,
    "attention_head_dim": 6,
    "cross_attention_dim": 12,
    "caption_channels": 8,
}


def _equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("shard_bytes", [None, 20_000], ids=["one file", "sharded"])
def test_full_key_set_survives_load_save_load(tmp_path: Path, shard_bytes: int | None) -> None:
    model = OpenSoraInpaint.from_config(FULL_KEYS)
    assert len(model.state_dict()) == 693
    model.save_pretrained(tmp_path / "a", max_shard_bytes=shard_bytes)
    assert (tmp_path / "a" / INDEX_NAME).exists() == (shard_bytes is not None)
    loaded = OpenSoraInpaint.from_pretrained(tmp_path / "a")
    loaded.save_pretrained(tmp_path / "b")
    again = OpenSoraInpaint.from_pretrained(tmp_path / "b")
    assert not loaded.training
    assert _equal(model, loaded)
    assert _equal(loaded, again)


def test_a_model_has_the_requested_dtype(tiny: Path) -> None:
    model = OpenSoraT2V.from_pretrained(tiny / "transformer_t2v", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_mismatches_are_listed_and_nothing_is_loaded(tmp_path: Path) -> None:
    model = OpenSoraT2V.from_config(TRANSFORMER_CONFIG)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / WEIGHTS_NAME)
    weights["surplus.weight"] = torch.zeros(1)
    weights["proj_out.bias"] = torch.zeros(3)
    weights["scale_shift_table"][0, 0] = torch.nan
    del weights["pos_embed.proj.bias"]
    save_file(weights, tmp_path / WEIGHTS_NAME)
    with pytest.raises(WeightsFileError) as caught:
        OpenSoraT2V.from_pretrained(tmp_path)
    text = str(caught.value)
    assert "1 missing: pos_embed.proj.bias" in text
    assert "1 unexpected: surplus.weight" in text
    assert "proj_out.bias (expected (16,), got (3,))" in text
    assert "1 not finite: scale_shift_table" in text


def test_folder_of_the_other_model_is_refused(tiny: Path) -> None:
    with pytest.raises(ConfigError, match="expected a config of OpenSoraInpaint, got one of 'OpenSoraT2V'"):
        OpenSoraInpaint.from_pretrained(tiny / "transformer_t2v")


def test_absent_folder_and_broken_file_are_named(tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(WeightsFileError, match=r"config\.json"):
        OpenSoraT2V.from_pretrained(tmp_path / "nowhere")
    (tmp_path / "config.json").write_bytes((tiny / "transformer_t2v" / "config.json").read_bytes())
    with pytest.raises(WeightsFileError, match="found neither"):
        OpenSoraT2V.from_pretrained(tmp_path)
    whole = (tiny / "transformer_t2v" / WEIGHTS_NAME).read_bytes()
    (tmp_path / WEIGHTS_NAME).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsFileError, match="not a whole safetensors file"):
        OpenSoraT2V.from_pretrained(tmp_path)


def test_index_cannot_reach_outside_its_folder(tmp_path: Path) -> None:
    OpenSoraT2V.from_config(TRANSFORMER_CONFIG).save_pretrained(tmp_path, max_shard_bytes=50_000)
    index = json.loads((tmp_path / INDEX_NAME).read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], "../elsewhere.safetensors")
    (tmp_path / INDEX_NAME).write_text(json.dumps(index))
    with pytest.raises(WeightsFileError, match="weight_map"):
        OpenSoraT2V.from_pretrained(tmp_path)


def test_missing_shard_and_disagreeing_index_are_named(tmp_path: Path) -> None:
    OpenSoraT2V.from_config(TRANSFORMER_CONFIG).save_pretrained(tmp_path, max_shard_bytes=50_000)
    shards = sorted(tmp_path.glob("*-of-*.safetensors"))
    content = load_file(shards[0])
    dropped = sorted(content)[0]
    save_file({key: value for key, value in content.items() if key != dropped}, shards[0])
    with pytest.raises(WeightsFileError, match=dropped.replace(".", r"\.")):
        OpenSoraT2V.from_pretrained(tmp_path)
    shards[0].unlink()
    with pytest.raises(WeightsFileError, match=shards[0].name):
        OpenSoraT2V.from_pretrained(tmp_path)


@pytest.mark.parametrize("form", ["ema", "gen_model", "state_dict"])
def test_autoencoder_training_checkpoint_wins_over_safetensors(tmp_path: Path, tiny: Path, form: str) -> None:
    vae = CausalVAEModel.from_pretrained(tiny / "vae")
    vae.save_pretrained(tmp_path)
    with torch.no_grad():
        vae.encoder.norm_out.weight.fill_(0.5)
    weights = vae.state_dict()
    stale = {key: torch.zeros_like(tensor) for key, tensor in weights.items()}
    content = {
        "ema": {"ema_state_dict": {f"module.{k}": v for k, v in weights.items()}, "state_dict": stale},
        "gen_model": {"ema_state_dict": {}, "state_dict": {"gen_model": weights}},
        "state_dict": {"state_dict": weights | {"perceptual_loss.net": torch.zeros(1)}},
    }[form]
    torch.save({"epoch": 3, **content}, tmp_path / "merge.ckpt")
    assert _equal(CausalVAEModel.from_pretrained(tmp_path), vae)


def test_training_checkpoint_that_would_run_code_is_refused(tmp_path: Path, tiny: Path) -> None:
    CausalVAEModel.from_pretrained(tiny / "vae").save_pretrained(tmp_path)
    torch.save({"state_dict": Path("anything")}, tmp_path / "evil.ckpt")
    with pytest.raises(WeightsFileError, match=r"evil\.ckpt"):
        CausalVAEModel.from_pretrained(tmp_path)


def test_image_to_video_training_starts_from_text_to_video(tiny: Path) -> None:
    base = OpenSoraT2V.from_pretrained(tiny / "transformer_t2v")
    model = OpenSoraInpaint.from_text_to_video(tiny / "transformer_t2v")
    own, weights = model.state_dict(), base.state_dict()
    assert all(torch.equal(own[key], weights[key]) for key in weights)
    assert torch.equal(own["pos_embed_masked_video.0.proj.weight"], weights["pos_embed.proj.weight"])
    assert not torch.equal(own["pos_embed_mask.0.proj.weight"], weights["pos_embed.proj.weight"])
    assert not own["pos_embed_masked_video.1.weight"].any()
    assert not own["pos_embed_mask.1.weight"].any()
    latents = torch.randn(1, 12, 2, 4, 4)
    text, mask = torch.randn(1, 1, 3, 32), torch.ones(1, 1, 3)
    started = model(latents, torch.tensor(7), text, encoder_attention_mask=mask)
    plain = base(latents[:, :4], torch.tensor(7), text, encoder_attention_mask=mask)
    torch.testing.assert_close(started, plain)


def test_trained_image_to_video_weights_are_refused_as_text_to_video(tiny: Path) -> None:
    model = OpenSoraInpaint.from_pretrained(tiny / "transformer_i2v")
    with pytest.raises(WeightsFileError, match="from_pretrained"):
        model.init_from_text_to_video(model.state_dict())


def test_lora_is_merged_into_the_published_keys(tmp_path: Path, tiny: Path) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    model = OpenSoraT2V.from_pretrained(tiny / "transformer_t2v")
    keys = model.state_dict().keys()
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["to_q", "to_out.0"], init_lora_weights=False), model)
    inputs = (torch.randn(1, 4, 2, 4, 4), torch.tensor([3]), torch.randn(1, 1, 3, 32))
    adapted = model(*inputs, encoder_attention_mask=torch.ones(1, 1, 3))
    model.save_pretrained(tmp_path)
    merged = OpenSoraT2V.from_pretrained(tmp_path)
    assert merged.state_dict().keys() == keys
    torch.testing.assert_close(merged(*inputs, encoder_attention_mask=torch.ones(1, 1, 3)), adapted)
