"""Tests of the metrics run on one thread, as the reference values were computed."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
