"""A LoRA run through the command line: what it tells, what leaves it, and what `generate` makes with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from mora_launch.cli import cli
from mora_runtime.errors import CheckpointError
from PIL import Image
from safetensors import safe_open

from .mora_process import QUICK, ROOT, MoraTrain, train

pytestmark = pytest.mark.timeout(900)

TINY = ROOT / "configs" / "tiny.yaml"
LORA = (
    *QUICK,
    "modulation.mode=none",  # so that the weights alone make the difference
    *(
        f"agents.{agent}.{change}"
        for agent in ("image", "video")
        for change in ("trainable={scope: lora, lora_rank: 4, lora_alpha: 16.0}", "learning_rate=0.02")
    ),
)


@pytest.fixture(scope="module")
def said_and_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    run = tmp_path_factory.mktemp("lora") / "run"
    return train(run, LORA), run


@pytest.fixture(scope="module")
def run(said_and_run: tuple[str, Path]) -> Path:
    return said_and_run[1]


def call(*words: object) -> str:
    done = CliRunner().invoke(cli, [*map(str, words)])
    assert done.exception is None, done.exception
    return done.output


def first_frame(output: Path, *words: object) -> tuple[np.ndarray, str]:
    """The first frame of a video, and what the command said."""
    said = call(
        "generate", "text-to-video", "--config", TINY, "--no-enhance", "--prompt", "a red circle moves left",
        "--steps", 4, "-o", output, *words,
    )  # fmt: skip
    with Image.open(output) as picture:
        return np.asarray(picture.convert("RGB")).astype(int), said


def test_the_start_shows_adapted_layers_and_the_first_steps_what_changed(said_and_run: tuple[str, Path]) -> None:
    said, run = said_and_run
    (image, video) = (
        sum(name.endswith(".lora_A.weight") for name in names(run, agent)) for agent in ("image", "video")
    )
    rows = [line.split() for line in said.splitlines() if line.startswith(("image ", "video "))]
    assert [row[:4] for row in rows] == [
        ["image", "lora,", str(image), "layers"], ["video", "lora,", str(video), "layers"],
    ]  # fmt: skip
    told = [line for line in said.splitlines() if line.startswith("trained tensors that changed by step")]
    assert told[-1].endswith(f"image {2 * image} of {2 * image}, video {2 * video} of {2 * video}")


def names(run: Path, agent: str) -> list[str]:
    path = run / "checkpoints" / "step-00000002" / agent / "weights" / "adapter_model.safetensors"
    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def test_every_format_is_exported_with_alpha(run: Path, tmp_path: Path) -> None:
    call("checkpoint", "export", run, "-o", tmp_path / "d", "--format", "diffusers-lora", "--agent", "image")
    with safe_open(tmp_path / "d" / "image" / "pytorch_lora_weights.safetensors", framework="pt") as file:
        told = json.loads(file.metadata()["lora_adapter_metadata"])
        assert {f"transformer.{name}" for name in names(run, "image")} == set(file.keys())
    assert (told["transformer.r"], told["transformer.lora_alpha"]) == (4, 16)
    call("checkpoint", "export", run, "-o", tmp_path / "p", "--format", "peft")
    for agent in ("image", "video"):
        config = json.loads((tmp_path / "p" / agent / "adapter_config.json").read_text())
        assert (config["r"], config["lora_alpha"], config["peft_type"]) == (4, 16, "LORA")


def test_the_video_agent_is_refused_for_diffusers_by_name(run: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        cli, ["checkpoint", "export", str(run), "-o", str(tmp_path / "d"), "--format", "diffusers-lora"]
    )
    assert isinstance(done.exception, CheckpointError)
    assert "agents.video: kind `opensora` has no pipeline in diffusers" in str(done.exception)
    assert not (tmp_path / "d").exists(), "nothing is left of an export"


def test_generate_makes_with_the_run_what_it_makes_with_the_merged_weights(run: Path, tmp_path: Path) -> None:
    untrained, _ = first_frame(tmp_path / "untrained.png")
    trained, said = first_frame(tmp_path / "trained.png", "--checkpoint", run)
    assert "checkpoint of step 2: image: LoRA adapters of " in said
    assert "(rank 4, alpha 16) on models/tiny/sd3/transformer; video: LoRA adapters of " in said
    call("checkpoint", "export", run, "-o", tmp_path / "m", "--format", "merged")
    merged, _ = first_frame(
        tmp_path / "merged.png",
        *(
            word
            for agent in ("image", "video")
            for word in ("--set", f"agents.{agent}.weights={tmp_path / 'm' / agent}")
        ),
    )
    assert np.abs(trained - merged).max() <= 1, "but for the rounding of W + BA"
    assert np.abs(trained - untrained).max() > 10


@pytest.mark.parametrize(
    ("agent", "trainable", "said"),
    [
        ("image", "{scope: lora, lora_targets: [to_q, to_kk]}", "`to_kk` matches no layer of this model"),
        ("video", "{scope: patterns, patterns: ['*.to_q.weight', '*.to_kk.weight']}", "`*.to_kk.weight` matches none"),
    ],
)
def test_what_matches_nothing_ends_the_job_before_the_first_step(
    tmp_path: Path, agent: str, trainable: str, said: str
) -> None:
    code, output = MoraTrain(tmp_path / "run", [*QUICK, f"agents.{agent}.trainable={trainable}"]).finish()
    assert code == 1, output
    assert said in output
    assert "the nearest name is" in output
    assert "step 1/" not in output


def test_a_job_whose_first_step_changes_nothing_of_an_agent_ends(tmp_path: Path) -> None:
    changes = [*QUICK, "agents.video.learning_rate=1.0e-30", "agents.video.optimizer.weight_decay=0.0"]
    code, output = MoraTrain(tmp_path / "run", changes).finish()
    assert code == 1, output
    assert "video: expected its" in output
    assert "step 1 changed none of them, so this agent learns nothing: raise agents.video.learning_rate" in output
