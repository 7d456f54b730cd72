"""The packages are those of `env_sd3`, so that both environments share one folder of them."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_the_lock_is_that_of_the_image_environment() -> None:
    ours, theirs = ((ROOT / name / "requirements.lock").read_bytes() for name in ("env_svd", "env_sd3"))
    assert ours == theirs
