"""A text encoder that is published as pickle: converted once, then loaded from safetensors with the same rows."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from mora_env_opensora.options import OpenSoraOptions
from mora_env_opensora.text.encoder import TextEncoder
from mora_environment.weights import safetensors_stream
from mora_environment.weights.conversion import convert
from mora_environment.weights.converted_folder import converted_weights, read_record
from mora_environment.weights.hub_cache import repository_folder
from mora_environment.weights.missing_weights import MissingWeights
from mora_environment.weights.presence import missing_weights
from mora_environment.weights.weights_source import WeightsSource
from mora_runtime.errors import CheckpointError
from safetensors.torch import load_file

COMMIT = "c" * 40
NAME = "some/mt5"
PROMPTS = ["a white cloud drifts over blue water", "two monsters dance in the rain"]


class Program:
    """Runs code when a plain pickle with it is loaded."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._marker),)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "hf"


def whole_model(tiny: Path) -> dict[str, torch.Tensor]:
    """What a published file has: encoder, decoder, and each shared table by three names."""
    from transformers import MT5Config, MT5ForConditionalGeneration

    config = MT5Config.from_pretrained(tiny / "text_encoder")
    config.num_decoder_layers, config.is_encoder_decoder = 1, True
    torch.manual_seed(1)
    weights: dict[str, torch.Tensor] = MT5ForConditionalGeneration(config).state_dict()
    return weights


def publish(content: Any, tiny: Path, *, old_format: bool = False) -> Path:
    """Put a repository into the cache as the Hub's client does, with `pytorch_model.bin` of this content."""
    repository = repository_folder(NAME)
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copy(tiny / "text_encoder" / "config.json", snapshot / "config.json")
    for path in (tiny / "tokenizer").iterdir():
        shutil.copy(path, snapshot / path.name)
    torch.save(content, repository / "new.bin", _use_new_zipfile_serialization=not old_format)
    digest = hashlib.sha256((repository / "new.bin").read_bytes()).hexdigest()
    (repository / "new.bin").rename(repository / "blobs" / digest)
    (snapshot / "pytorch_model.bin").symlink_to(Path("../../blobs") / digest)
    return repository / "blobs" / digest


def source(dtype: str = "float32") -> WeightsSource:
    options = OpenSoraOptions(
        model="models", vae="models", text_encoder=NAME, dtype=dtype, num_frames=5, height=32, width=32
    )  # type: ignore[arg-type]
    return next(each for each in options.weights_sources() if each.option == "text_encoder")


def rows(dtype: torch.dtype) -> list[torch.Tensor]:
    encoder = TextEncoder(NAME, dtype=dtype, max_length=32)
    return [encoder.rows_of(prompt) for prompt in PROMPTS]


def missing() -> list[MissingWeights]:
    return missing_weights([source()], "agents.video.options")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("old_format", [False, True])
def test_rows_are_the_same_before_and_after(tiny: Path, hub: Path, dtype: str, old_format: bool) -> None:
    publish(whole_model(tiny), tiny, old_format=old_format)
    before = rows(getattr(torch, dtype))
    folder = convert(source(dtype), COMMIT, ["pytorch_model.bin"], lambda line: None)
    assert converted_weights(NAME, dtype) == folder
    after = rows(getattr(torch, dtype))
    assert [torch.equal(one, other) for one, other in zip(before, after, strict=True)] == [True, True]
    (repository_folder(NAME) / "snapshots" / COMMIT / "pytorch_model.bin").unlink()  # so it is the converted one
    again = rows(getattr(torch, dtype))
    assert [torch.equal(one, other) for one, other in zip(before, again, strict=True)] == [True, True]


def test_only_the_encoder_is_stored_once_and_in_the_dtype(tiny: Path, hub: Path) -> None:
    whole = whole_model(tiny)
    blob = publish(whole, tiny)
    folder = convert(source("bfloat16"), COMMIT, ["pytorch_model.bin"], lambda line: None)
    stored = load_file(folder / "model.safetensors")
    encoder = {name for name in whole if name.startswith("encoder.")} - {"encoder.embed_tokens.weight"}
    assert set(stored) == encoder | {"shared.weight"}
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert all(torch.equal(tensor, whole[name].bfloat16()) for name, tensor in stored.items())
    record = read_record(folder)
    assert record is not None
    assert [(each.path, each.sha256) for each in record.sources] == [("pytorch_model.bin", blob.name)]
    assert folder.parent.parent == hub / "mora-weights"


def test_an_unconverted_file_counts_as_missing_and_a_converted_one_as_there(tiny: Path, hub: Path) -> None:
    publish(whole_model(tiny), tiny)
    (found,) = missing()
    assert found.needs_conversion
    told = "agents.video.options.text_encoder: some/mt5 (pytorch_model.bin) is not converted to safetensors yet"
    assert str(found) == told
    convert(source(), COMMIT, ["pytorch_model.bin"], lambda line: None)
    assert missing() == []
    (converted_weights(NAME, "float32") or hub).joinpath("model.safetensors").write_bytes(b"cut")
    assert missing()[0].needs_conversion


def test_a_second_conversion_changes_nothing_and_a_killed_one_is_cleaned_up(tiny: Path, hub: Path) -> None:
    publish(whole_model(tiny), tiny)
    folder = convert(source(), COMMIT, ["pytorch_model.bin"], lambda line: None)
    written = (folder / "model.safetensors").stat()
    assert convert(source(), COMMIT, ["pytorch_model.bin"], lambda line: None) == folder
    assert (folder / "model.safetensors").stat() == written
    shutil.rmtree(folder)
    left = folder.parent / f".{folder.name}.dead.partial"
    left.mkdir()
    convert(source(), COMMIT, ["pytorch_model.bin"], lambda line: None)
    assert [path.name for path in folder.parent.iterdir() if not path.name.endswith(".lock")] == [folder.name]


def test_shards_become_one_file(tiny: Path, hub: Path) -> None:
    whole = whole_model(tiny)
    publish({}, tiny)
    snapshot = repository_folder(NAME) / "snapshots" / COMMIT
    (snapshot / "pytorch_model.bin").unlink()
    names = sorted(whole)
    shard_of = {name: f"pytorch_model-0000{1 + at % 2}-of-00002.bin" for at, name in enumerate(names)}
    for shard in set(shard_of.values()):
        torch.save({name: whole[name] for name in names if shard_of[name] == shard}, snapshot / shard)
    (snapshot / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shard_of}))
    assert missing()[0].needs_conversion
    before = rows(torch.float32)
    convert(source(), COMMIT, ["pytorch_model.bin.index.json", *sorted(set(shard_of.values()))], lambda line: None)
    assert missing() == []
    after = rows(torch.float32)
    assert [torch.equal(one, other) for one, other in zip(before, after, strict=True)] == [True, True]


@pytest.mark.parametrize("old_format", [False, True])
def test_a_pickle_with_a_program_is_refused_and_does_not_run(tiny: Path, hub: Path, old_format: bool) -> None:
    marker = hub / "it-ran"
    publish({"shared.weight": torch.ones(2, 2), "encoder.x": Program(marker)}, tiny, old_format=old_format)
    with pytest.raises(CheckpointError, match=r"some/mt5/pytorch_model.bin: cannot be loaded as tensors only"):
        convert(source(), COMMIT, ["pytorch_model.bin"], lambda line: None)
    assert not marker.exists()
    assert converted_weights(NAME, "float32") is None
    torch.load(repository_folder(NAME) / "snapshots" / COMMIT / "pytorch_model.bin", weights_only=False)
    assert marker.exists()  # so the file was an attack


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([torch.ones(1)], "expected tensors by name, got list"),
        ({"decoder.x": torch.ones(1)}, "expected tensors named shared. or encoder."),
        ({"shared.weight": torch.ones(1, dtype=torch.int64)}, "`shared.weight`: expected dense floating point"),
    ],
)
def test_other_content_is_refused(tiny: Path, hub: Path, content: Any, told: str) -> None:
    publish(content, tiny)
    with pytest.raises(CheckpointError, match=told):
        convert(source(), COMMIT, ["pytorch_model.bin"], lambda line: None)


def test_a_damaged_file_is_refused_by_its_hash(tiny: Path, hub: Path) -> None:
    blob = publish(whole_model(tiny), tiny)
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"is damaged: its SHA-256 is .*, expected {blob.name}"):
        convert(source(), COMMIT, ["pytorch_model.bin"], lambda line: None)


def test_memory_does_not_grow_with_the_file(tiny: Path, hub: Path) -> None:
    num_tensors, nbytes = 8, 256 << 20
    publish({f"encoder.{at}": torch.zeros(nbytes // 4 // num_tensors) for at in range(num_tensors)}, tiny)
    before = _anonymous_nbytes()
    highest: list[int] = []
    write_tensor = safetensors_stream._write_tensor

    def watched(*arguments: Any) -> None:
        write_tensor(*arguments)
        highest.append(_anonymous_nbytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(safetensors_stream, "_write_tensor", watched)
        convert(source("bfloat16"), COMMIT, ["pytorch_model.bin"], lambda line: None)
    assert len(highest) == num_tensors
    assert max(highest) - before < nbytes // 4  # the file in bfloat16 has half of its bytes


def _anonymous_nbytes() -> int:
    """Memory of this process that is not a mapped file."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) << 10
