"""Adapters that were trained jointly with z: with the name of their run a request gets what its checkpoint makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mora_data.reading.fitting import Clip
from mora_launch.config.train_config import load_config
from mora_launch.serving.running_servers import RunningServers
from mora_launch.serving.server_pool import ServerPool
from mora_launch.serving.terms import DEFAULT_TERMS, LoraChoice, Terms
from mora_runtime.process.run_directory import RunDirectory
from rich.console import Console

from tests.integration.training.mora_process import MoraTrain

from .conftest import TINY

pytestmark = [pytest.mark.timeout(600), pytest.mark.long]
FRAME = np.full((64, 64, 3), 90, dtype=np.uint8)
TRAINING = [
    "training.num_steps=2", "training.checkpoint_every=2", "training.batch_size=4", "samples.enabled=false",
    "agents.image.trainable.scope=lora", "agents.image.trainable.lora_alpha=40", "agents.image.learning_rate=0.02",
    "agents.video.trainable.scope=lora", "agents.video.learning_rate=0.02",
]  # fmt: skip


def made(pool: ServerPool, terms: Terms = DEFAULT_TERMS) -> list[Clip]:
    """A picture and a clip."""
    shared = {"num_inference_steps": None, "guidance_scale": None}
    text = {"prompts": "a red circle", "seeds": 3}
    works = [
        pool.submit("text_to_image", text, shared, terms=terms),
        pool.submit("image_to_video", {**text, "images": FRAME}, shared, terms=terms),
    ]
    return [work.future.result(120) for work in works]


def test_a_request_with_the_adapters_of_a_run_is_made_as_by_a_server_of_its_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    code, said = MoraTrain(run, TRAINING, config=str(TINY)).finish()
    assert code == 0, said
    found: dict[str, list[list[Clip]]] = {}
    changes = {"checkpoint": f"serving.checkpoint={run}", "adapters": f"serving.adapters.named.joint={run}:2"}
    terms = {"checkpoint": [DEFAULT_TERMS], "adapters": [Terms(lora=LoraChoice(name="joint")), DEFAULT_TERMS]}
    for name, change in changes.items():
        with (
            RunDirectory.create(tmp_path / name, lock=True) as directory,
            RunningServers(load_config(TINY, [change]), directory, Console(quiet=True)) as servers,
        ):
            found[name] = [made(servers.pool, each) for each in terms[name]]
    for expected, adapted, plain in zip(*found["checkpoint"], *found["adapters"], strict=True):
        assert np.array_equal(adapted, expected)
        assert not np.array_equal(adapted, plain)
