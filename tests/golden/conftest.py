"""Settings of the reference tests: one thread, and third-party import warnings that are not ours."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # transformers 4.40 and huggingface_hub 0.25 under torch 2.13: raised inside their own modules.
        item.add_marker(pytest.mark.filterwarnings("ignore::FutureWarning:huggingface_hub.*"))
        item.add_marker(pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*"))
        item.add_marker(pytest.mark.filterwarnings("ignore::FutureWarning:diffusers.*"))
