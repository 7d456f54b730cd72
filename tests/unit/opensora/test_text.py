"""Rules for text: cutting, caching and dropping."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch
from mora_env_opensora.models import InputError, WeightsFileError
from mora_env_opensora.text.cache import TextCache
from mora_env_opensora.text.dropout import DEFAULT_VIDEO_TEXT, TextDropout
from mora_env_opensora.text.encoder import TextEncoder


@pytest.fixture(scope="module")
def encoder(tiny: Path) -> TextEncoder:
    return TextEncoder(tiny / "text_encoder", max_length=8)


def test_rows_equal_those_of_upstreams_padded_call(tiny: Path, encoder: TextEncoder) -> None:
    from transformers import AutoTokenizer, MT5EncoderModel

    tokenizer = AutoTokenizer.from_pretrained(tiny / "tokenizer")
    model = MT5EncoderModel.from_pretrained(tiny / "text_encoder").eval()
    padded = tokenizer("a cat", max_length=32, padding="max_length", truncation=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(padded.input_ids, attention_mask=padded.attention_mask).last_hidden_state[0]
    rows = encoder.rows(encoder.encode("A cat"))
    torch.testing.assert_close(rows, expected[padded.attention_mask[0].bool()], rtol=1e-5, atol=1e-5)


def test_a_long_text_is_cut_and_keeps_its_end_token(encoder: TextEncoder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        rows = encoder.rows(encoder.encode("a stylish woman walks down a street filled with warm glowing signs"))
    assert rows.shape == (8, 32)
    assert "cut to max_length 8" in caplog.text
    tokenizer = encoder._tokenizer
    ids = tokenizer("a stylish woman walks down a street filled with warm glowing signs").input_ids
    with torch.no_grad():
        expected = encoder._model(torch.tensor([[*ids[:7], 1]])).last_hidden_state[0]
    assert torch.equal(rows, expected)


def test_an_empty_text_is_only_its_end_token(encoder: TextEncoder) -> None:
    assert encoder.rows(encoder.encode("")).shape == (1, 32)


def test_modulation_text_keeps_its_brackets_and_drops_its_end_token(encoder: TextEncoder) -> None:
    rows = encoder.content_rows("[Mod]")
    ids = encoder._tokenizer("[Mod]").input_ids
    assert rows.shape == (len(ids) - 1, 32)
    assert rows.dtype == torch.float32
    assert not torch.equal(rows[:1], encoder.content_rows("Mod")[:1])
    with pytest.raises(InputError, match="at least one token"):
        encoder.content_rows("")


def test_a_new_token_has_one_row(encoder: TextEncoder) -> None:
    assert encoder.new_token_row().shape == (1, 32)


def test_cleaning_can_be_off(tiny: Path, encoder: TextEncoder) -> None:
    plain = TextEncoder(tiny / "text_encoder", max_length=8, clean=False)
    assert encoder.encode("(A cat)") == encoder.encode("a cat")
    assert plain.encode("(A cat)") != plain.encode("a cat")


def test_cached_texts_need_no_encoder(tiny: Path, tmp_path: Path) -> None:
    first = TextEncoder(tiny / "text_encoder", cache=TextCache(tmp_path))
    key = first.encode("a dog")
    assert first.loaded
    assert first.unload()
    assert not first.unload()
    second = TextEncoder(tiny / "text_encoder", cache=TextCache(tmp_path))
    assert second.encode("A dog") == key
    assert torch.equal(second.rows(key), first.rows(key))
    assert not second.loaded


def test_a_broken_cache_file_counts_as_absent(tiny: Path, tmp_path: Path) -> None:
    encoder = TextEncoder(tiny / "text_encoder", cache=TextCache(tmp_path))
    key = encoder.encode("a dog")
    (tmp_path / f"{key}.safetensors").write_bytes(b"\x00" * 20)
    again = TextEncoder(tiny / "text_encoder", cache=TextCache(tmp_path))
    assert torch.equal(again.rows(again.encode("a dog")), encoder.rows(key))
    assert {path.name for path in tmp_path.iterdir()} == {f"{key}.safetensors", "weights.json"}


def test_keys_tell_encoders_and_settings_apart(tiny: Path, tmp_path: Path) -> None:
    from mora_env_opensora.tiny import make_tiny

    make_tiny(tmp_path, seed=1)
    keys = {
        TextEncoder(tiny / "text_encoder").encode("a cat"),
        TextEncoder(tiny / "text_encoder", max_length=64).encode("a cat"),
        TextEncoder(tiny / "text_encoder", dtype=torch.bfloat16).encode("a cat"),
        TextEncoder(tmp_path / "text_encoder").encode("a cat"),
    }
    assert len(keys) == 4


def test_one_changed_byte_in_the_middle_of_the_weights_changes_the_keys(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "text_encoder", tmp_path / "text_encoder")
    shutil.copytree(tiny / "tokenizer", tmp_path / "tokenizer")
    (weights,) = (tmp_path / "text_encoder").glob("*.safetensors")
    cache = tmp_path / "cache"
    before = TextEncoder(tmp_path / "text_encoder", cache=TextCache(cache)).encode("a cat")
    assert TextEncoder(tmp_path / "text_encoder", cache=TextCache(cache)).encode("a cat") == before
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    assert TextEncoder(tmp_path / "text_encoder", cache=TextCache(cache)).encode("a cat") != before


def test_unloading_gives_a_gpus_memory_back(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(encoder.loaded))
    encoder = TextEncoder(tiny / "text_encoder", device="cuda")
    assert not encoder.unload()
    assert not emptied
    encoder._model = torch.nn.Linear(1, 1)  # a real one would need the GPU
    assert encoder.unload()
    assert emptied == [False]  # after the last reference is gone
    on_cpu = TextEncoder(tiny / "text_encoder")
    on_cpu.encode("a cat")
    emptied.clear()  # loading calls it too
    assert on_cpu.unload()
    assert not emptied


def test_unknown_keys_and_folders_are_refused(tiny: Path, tmp_path: Path) -> None:
    encoder = TextEncoder(tiny / "text_encoder")
    with pytest.raises(InputError, match="encode it first"):
        encoder.rows("0" * 64)
    with pytest.raises(WeightsFileError, match="expected a folder, or a Hub id"):
        TextEncoder(tmp_path / "absent")
    shutil.copytree(tiny / "text_encoder", tmp_path / "alone")
    with pytest.raises(WeightsFileError, match="expected a tokenizer"):
        TextEncoder(tmp_path / "alone")
    with pytest.raises(InputError, match="max_length"):
        TextEncoder(tiny / "text_encoder", max_length=1)


def test_texts_are_dropped_with_the_configured_shares() -> None:
    dropout, generator = TextDropout(0.2, 0.5), torch.Generator().manual_seed(0)
    drawn = [dropout.replacement(9, generator) for _ in range(4000)]
    assert 720 < len(drawn) - drawn.count(None) < 880
    assert 330 < drawn.count("") < 470
    assert drawn.count("") + drawn.count(DEFAULT_VIDEO_TEXT) + drawn.count(None) == len(drawn)
    assert "image" in TextDropout(1.0, 1.0).replacement(1, generator)
    with pytest.raises(InputError, match="probability"):
        TextDropout(1.1)
