"""Targets: encoded once for all processes and runs that share a folder, and the same bytes as when they are encoded."""

from __future__ import annotations

import hashlib
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from mora_env_opensora.agent import OpenSoraAgent
from mora_env_opensora.models import CausalVAEModel
from mora_env_opensora.objective import Target
from mora_env_opensora.options import OpenSoraOptions
from mora_environment.job_folder import shared_folders
from mora_runtime.errors import BadArgument
from mora_runtime.rpc.agent import methods_of
from safetensors.torch import save_file


def _agent(tiny: Path, **changes: Any) -> OpenSoraAgent:
    options = {
        "model": str(tiny / "transformer_i2v"), "vae": str(tiny / "vae"), "text_encoder": str(tiny / "text_encoder"),
        "num_frames": 9, "height": 32, "width": 32, "max_length": 32, "num_inference_steps": 4,
    }  # fmt: skip
    return OpenSoraAgent.from_options(OpenSoraOptions(**(options | changes)), torch.device("cpu"))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of frames of every clip that an autoencoder encodes."""
    clips: list[int] = []
    encode = CausalVAEModel.encode

    def counted(self: CausalVAEModel, video: torch.Tensor, **options: Any) -> Any:
        clips.append(video.shape[2])
        return encode(self, video, **options)

    monkeypatch.setattr(CausalVAEModel, "encode", counted)
    return clips


def _clip(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (9, 32, 32, 3), dtype=torch.uint8, generator=generator)


def _equal(one: Target, other: Target) -> bool:
    return torch.equal(one.mean, other.mean) and torch.equal(one.std, other.std)


def test_the_key_is_the_hash_of_the_pixels_and_the_target_the_clips_posterior(tiny: Path) -> None:
    agent = _agent(tiny)
    key = agent.store_target(_clip())["key"]
    assert key == hashlib.sha256(_clip().numpy().tobytes()).hexdigest()
    with torch.no_grad():
        posterior = agent._vae.encode(_clip().permute(3, 0, 1, 2)[None].contiguous().float() / 127.5 - 1.0)
    assert _equal(agent._target(key), Target(posterior.mean[0], posterior.std[0]))


def test_pixels_are_taken_on_the_host() -> None:
    assert methods_of(OpenSoraAgent)["store_target"].on_host == {"pixels"}


def test_a_clip_is_encoded_once_for_all_that_share_the_folder(tiny: Path, tmp_path: Path, encoded: list[int]) -> None:
    first = _agent(tiny, target_cache=str(tmp_path))
    key = first.store_target(_clip())["key"]
    assert first.store_target(_clip())["key"] == key
    assert encoded == [9]
    other = _agent(tiny, target_cache=str(tmp_path))
    assert other.has_targets([key, "0" * 64, "../x"]) == {"found": [True, False, False]}
    assert other.store_target(_clip())["key"] == key
    assert encoded == [9]
    assert _equal(other._target(key), first._target(key))


def test_replicas_and_restarts_of_a_job_share_the_jobs_folder(tiny: Path, tmp_path: Path, encoded: list[int]) -> None:
    with shared_folders(tmp_path / "cache"):
        first, second = _agent(tiny), _agent(tiny)
    key = first.store_target(_clip())["key"]
    assert second.has_targets([key]) == {"found": [True]}
    assert encoded == [9]
    assert len(list((tmp_path / "cache" / "targets").glob("*.safetensors"))) == 1
    keys = first.encode(["a cat"])["keys"]
    rows = first.modulation_rows("[Mod]")["rows"]
    new_row = first.modulation_rows("", new_token=True)["rows"]
    assert second.encode(["a cat"])["keys"] == keys
    assert torch.equal(second.modulation_rows("[Mod]")["rows"], rows)
    assert torch.equal(second.modulation_rows("", new_token=True)["rows"], new_row)
    assert second.unload_text_encoder() == {"unloaded": False}  # it has never been loaded
    assert torch.equal(second._encoder.rows(keys[0]), first._encoder.rows(keys[0]))


def test_outside_of_a_job_nothing_is_written(tiny: Path, tmp_path: Path, encoded: list[int]) -> None:
    key = _agent(tiny).store_target(_clip())["key"]
    assert _agent(tiny).has_targets([key]) == {"found": [False]}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("outlives", [True, False], ids=["of the user", "of the job"])
def test_other_weights_sizes_and_dtypes_have_other_targets(tiny: Path, tmp_path: Path, outlives: bool) -> None:
    vae, cache = tmp_path / "vae", tmp_path / "cache"
    shutil.copytree(tiny / "vae", vae)

    def agent(**changes: Any) -> OpenSoraAgent:
        with shared_folders(tmp_path / "job"):
            return _agent(tiny, **({"vae": str(vae)} | changes), target_cache=str(cache) if outlives else None)

    key = agent().store_target(_clip())["key"]
    found = [agent(**changes).has_targets([key])["found"] for changes in (
        {}, {"vae_dtype": "bfloat16"}, {"vae_tiling": True}, {"num_frames": 5}, {"height": 48}
    )]  # fmt: skip
    assert found == [[True], [False], [False], [False], [False]]
    weights = vae / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert agent().has_targets([key]) == {"found": [False]}


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _another_shape(path: Path) -> None:
    save_file({"mean": torch.zeros(4, 3, 4, 5), "std": torch.zeros(4, 3, 4, 4)}, path)


def _not_a_number(path: Path) -> None:
    save_file({"mean": torch.full((4, 3, 4, 4), torch.nan), "std": torch.ones(4, 3, 4, 4)}, path)


def _another_name(path: Path) -> None:
    save_file({"mean": torch.zeros(4, 3, 4, 4), "logvar": torch.zeros(4, 3, 4, 4)}, path)


def _whole_numbers(path: Path) -> None:
    save_file({name: torch.zeros(4, 3, 4, 4, dtype=torch.int32) for name in ("mean", "std")}, path)


@pytest.mark.parametrize(
    "spoil", [_truncate, _another_shape, _not_a_number, _another_name, _whole_numbers], ids=lambda spoil: spoil.__name__
)
def test_a_bad_file_is_made_again_with_a_warning(
    tiny: Path, tmp_path: Path, encoded: list[int], caplog: pytest.LogCaptureFixture, spoil: Any
) -> None:
    good = _agent(tiny, target_cache=str(tmp_path))
    key = good.store_target(_clip())["key"]
    (path,) = tmp_path.glob("*.safetensors")
    before = path.read_bytes()
    spoil(path)
    again = _agent(tiny, target_cache=str(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert again.store_target(_clip())["key"] == key
    assert path.name in caplog.text
    assert "is made again" in caplog.text
    assert encoded == [9, 9]
    assert path.read_bytes() == before
    assert _equal(again._target(key), good._target(key))


def test_a_folder_that_cannot_be_written_costs_only_the_file(
    tiny: Path, tmp_path: Path, encoded: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    agent = _agent(tiny, target_cache=str(tmp_path / "cache"))
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        key = agent.store_target(_clip())["key"]
    assert "cannot be written" in caplog.text
    assert agent.store_target(_clip())["key"] == key
    assert encoded == [9]


def test_an_unknown_target_is_refused(tiny: Path) -> None:
    with pytest.raises(BadArgument, match="unknown target key `abc`"):
        _agent(tiny)._target("abc")
