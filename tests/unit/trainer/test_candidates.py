"""Candidates on a full disk are whole or absent, and made again with the same bytes."""

import json
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from mora_data.moving_shapes import made_clip
from mora_data.settings import ClipShape
from mora_runtime.errors import StorageError
from mora_runtime.files.durable_files import sha256_of
from mora_trainer.candidate_settings import CandidateOrder
from mora_trainer.candidates import CandidateMaker
from mora_trainer.chain.generation import ChainGenerator, Made
from mora_trainer.chain.stage import Embeddings

SHAPE = ClipShape(num_frames=9, height=64, width=64, fps=8)


class MadeClips(ChainGenerator):
    """Makes drawn clips, without a model."""

    def make(self, prompts: Mapping[str, str], seeds: Mapping[str, int], embeddings: Embeddings) -> Made:
        frames = made_clip(seeds["video"], SHAPE)[1]
        return Made({"image": frames[0]}, frames)

    def initial_noise(self, seeds: Mapping[str, int]) -> dict[str, torch.Tensor]:
        noise = torch.randn(3000, generator=torch.Generator().manual_seed(seeds["video"]))
        return {"image": noise, "video": noise + 1.0}


@contextmanager
def no_file_over(nbytes: int) -> Iterator[None]:
    """Let the kernel refuse to grow any file beyond this size, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def maker() -> CandidateMaker:
    return CandidateMaker(MadeClips([]), {}, {}, SHAPE.fps)


def files(folder: Path) -> dict[str, tuple[int, str]]:
    return {path.name: (path.stat().st_size, sha256_of(path)) for path in folder.iterdir()}


def test_a_disk_that_fills_at_any_file_leaves_nothing_of_a_candidate(tmp_path: Path) -> None:
    whole = CandidateOrder(prompt="p", seeds={"image": 1, "video": 1}, folder=str(tmp_path / "whole" / "candidate-0"))
    maker().make(whole)
    expected = files(Path(whole.folder))
    assert len(expected) == 5
    assert {name: digest for name, (_, digest) in expected.items() if name != "video.mp4"}.items() >= {
        **json.loads((Path(whole.folder) / "candidate.json").read_text())["sha256"]
    }.items()
    target = tmp_path / "set" / "candidate-0"
    order = whole.model_copy(update={"folder": str(target)})
    for nbytes in sorted({0, *(size - 1 for size, _ in expected.values())}):
        with no_file_over(nbytes), pytest.raises(StorageError, match="candidate set/candidate-0: cannot be written"):
            maker().make(order)
        assert list((tmp_path / "set").iterdir()) == []
    maker().make(order)
    again = files(target)
    assert {**again, "video.mp4": None} == {**expected, "video.mp4": None}
