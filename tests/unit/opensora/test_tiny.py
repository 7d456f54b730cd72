"""The tiny chain: quick to make, the same every time, in the published layout."""

from __future__ import annotations

import time
from pathlib import Path

from mora_env_opensora.models import CausalVAEModel, OpenSoraInpaint, OpenSoraT2V
from mora_env_opensora.tiny import make_tiny


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_same_seed_same_bytes_in_seconds(tmp_path: Path, tiny: Path) -> None:
    started_s = time.thread_time()  # others may use this machine too
    make_tiny(tmp_path)
    assert time.thread_time() - started_s < 10
    assert _contents(tmp_path) == _contents(tiny)


def test_layout_is_the_published_one(tiny: Path) -> None:
    assert {path.name for path in tiny.iterdir()} == {
        "transformer_i2v", "transformer_t2v", "vae", "text_encoder", "tokenizer",
    }  # fmt: skip
    model = OpenSoraInpaint.from_pretrained(tiny / "transformer_i2v")
    OpenSoraT2V.from_pretrained(tiny / "transformer_t2v")
    CausalVAEModel.from_pretrained(tiny / "vae")
    assert model.pos_embed_masked_video[1].weight.abs().min() > 0
    assert model.pos_embed_mask[1].weight.abs().min() > 0
