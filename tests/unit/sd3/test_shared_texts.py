"""Encoded texts in a job's folder: other servers of the job read them and never load the encoders."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from mora_env_sd3.agent import Sd3Agent
from mora_env_sd3.options import Sd3Options
from mora_environment.job_folder import shared_folders

CPU = torch.device("cpu")


def _agent(options: Sd3Options, folder: Path | None) -> Sd3Agent:
    with shared_folders(folder):
        return Sd3Agent(options, CPU)


def test_another_server_of_the_job_gets_the_same_bits_without_encoders(options: Sd3Options, tmp_path: Path) -> None:
    first, alone = _agent(options, tmp_path), _agent(options, None)
    keys = first.encode(["a cat", "a dog"])["keys"]
    rows = [first.modulation_rows("[Mod]", new_token)["rows"] for new_token in (False, True)]
    other = _agent(options, tmp_path)
    assert other.encode(["a cat", "a dog"])["keys"] == keys == alone.encode(["a cat", "a dog"])["keys"]
    for new_token, expected in zip((False, True), rows, strict=True):
        assert torch.equal(other.modulation_rows("[Mod]", new_token)["rows"], expected)
    assert other._encoders._pipeline is None
    found, negative = other.embeddings(keys)
    expected_found, expected_negative = alone.embeddings(keys)
    for one, two in zip([*found, negative], [*expected_found, expected_negative], strict=True):
        assert torch.equal(one.joint, two.joint)
        assert torch.equal(one.pooled, two.pooled)


def test_another_length_or_dtype_has_its_own_texts(options: Sd3Options, tmp_path: Path) -> None:
    _agent(options, tmp_path).encode(["a cat"])
    count = len(list((tmp_path / "text").glob("*.safetensors")))
    for changes in ({"max_sequence_length": options.max_sequence_length + 1}, {"dtype": "bfloat16"}):
        other = _agent(options.model_copy(update=changes), tmp_path)
        other.encode(["a cat"])
        assert other._encoders._pipeline is not None
    assert len(list((tmp_path / "text").glob("*.safetensors"))) == 3 * count


def test_a_bad_file_is_made_again_with_a_warning(
    options: Sd3Options, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _agent(options, tmp_path).encode(["a cat"])
    files = sorted((tmp_path / "text").glob("*.safetensors"))
    contents = [path.read_bytes() for path in files]
    for path in files:
        path.write_bytes(b"\x00" * 30)
    with caplog.at_level(logging.WARNING):
        _agent(options, tmp_path).encode(["a cat"])
    assert caplog.text.count("is made again") == len(files)
    assert [path.read_bytes() for path in files] == contents
