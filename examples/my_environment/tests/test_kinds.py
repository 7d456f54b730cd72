"""Every kind passes Mora's conformance suite, and the style that training changes has an effect."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from my_environment.__main__ import KINDS
from my_environment.stylist import WIDTH, Stylist


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_passes_the_conformance_suite(kind: str) -> None:
    command = [sys.executable, "-m", "my_environment", "check", kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_another_style_makes_another_picture() -> None:
    model, images = Stylist(), torch.rand(2, 3, 16, 16)
    assert not torch.equal(model(images, torch.zeros(WIDTH)), model(images, torch.ones(WIDTH)))
