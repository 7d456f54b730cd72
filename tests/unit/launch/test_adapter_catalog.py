"""Adapters that requests may name: read at the start from runs, exported folders and files, or refused in one line."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mora_environment.adapters.names import DIFFUSERS_FILE, DIFFUSERS_METADATA, PEFT_CONFIG, PEFT_PREFIX
from mora_launch.checkpoints.adapter_catalog import AdapterCatalog
from mora_launch.config.adapters_config import AdaptersConfig
from mora_launch.config.train_config import load_config
from mora_runtime.errors import CheckpointError, SettingsError
from mora_training.training_settings import ADAPTER_FILE, TrainableSettings
from safetensors.numpy import save, save_file

from tests.unit.launch.adapter_run import TINY, adapters_of, whole, write_checkpoint

AGENTS = ("image", "video")
MOST_NBYTES = 1 << 20


def tensors(prefix: str = "", rank: int = 4) -> dict[str, Any]:
    down, up = np.ones((rank, 3), "f4"), np.ones((3, rank), "f4")
    return {f"{prefix}a.to_q.lora_A.weight": down, f"{prefix}a.to_q.lora_B.weight": up}


def native(folder: Path, rank: int = 4) -> Path:
    folder.mkdir(parents=True)
    save_file(tensors(), folder / ADAPTER_FILE)
    settings = TrainableSettings(scope="lora", lora_rank=rank, lora_alpha=20.0)
    (folder / "config.json").write_text(json.dumps(settings.model_dump()))
    return folder


def peft(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    save_file(tensors(PEFT_PREFIX), folder / ADAPTER_FILE)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 20, "bias": "none", "target_modules": ["to_q"], **changes}
    (folder / PEFT_CONFIG).write_text(json.dumps(config))
    return folder


def diffusers(path: Path, header: dict[str, Any] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    told = header or {"transformer.r": 4, "transformer.lora_alpha": 20}
    save_file(tensors("transformer."), path, metadata={DIFFUSERS_METADATA: json.dumps(told)})
    return path


def read(config: dict[str, Any], most_nbytes: int = MOST_NBYTES) -> AdapterCatalog:
    return AdapterCatalog.read(AdaptersConfig.model_validate(config), AGENTS, most_nbytes)


def test_every_format_that_export_writes_is_read_with_its_alpha(tmp_path: Path) -> None:
    native(tmp_path / "one" / "image")
    peft(tmp_path / "two" / "image")
    diffusers(tmp_path / "three" / "image" / DIFFUSERS_FILE)
    (tmp_path / "one" / "exported.json").write_text("{}")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    catalog = read({"folder": str(tmp_path)})
    assert sorted(catalog.entries) == ["one", "three", "two"]
    prefixes = {"one": "", "two": PEFT_PREFIX, "three": "transformer."}
    for allowed in catalog.allowed_for("image"):
        assert (allowed.alpha, allowed.prefix, allowed.must_fit) == (20.0, prefixes[allowed.name], True)
        assert hashlib.sha256(Path(allowed.file).read_bytes()).hexdigest() == allowed.sha256
    assert catalog.allowed_for("video") == ()


def test_adapters_without_the_name_of_an_agent_are_for_every_agent_that_they_fit(tmp_path: Path) -> None:
    peft(tmp_path / "ink")
    diffusers(tmp_path / "oil.safetensors")
    catalog = read({"folder": str(tmp_path)})
    for agent in AGENTS:
        assert [(each.name, each.must_fit) for each in catalog.allowed_for(agent)] == [("ink", False), ("oil", False)]
    assert list(catalog.entries["oil"].sha256) == ["any"]


def test_a_run_gives_each_agent_its_adapters_and_its_z(tmp_path: Path) -> None:
    z = {"coordinator/modulation.safetensors": save({"image": np.full((2, 3), 7, "f4")})}
    run = write_checkpoint(tmp_path / "run", adapters_of("image") | adapters_of("video") | z)
    catalog = read({"named": {"joint": f"{run}:4", "latest": str(run)}})
    for name in ("joint", "latest"):
        entry = catalog.entries[name]
        assert list(entry.files) == ["image", "video"]
        assert entry.files["image"].sha256 == entry.sha256["image"]
        assert list(entry.sha256) == ["image", "video", "modulation"]
        assert entry.run is not None
        assert entry.run.read_embeddings()["image"].max() == 7
    assert str(catalog.entries["joint"]) == f"`joint` from step 4 of {run}, for image, video"


def other_agent(folder: Path) -> dict[str, Any]:
    return {"named": {"ink": str(native(folder / "ink" / "refine").parent)}}


def whole_weights(folder: Path) -> dict[str, Any]:
    return {"named": {"ink": str(write_checkpoint(folder / "run", adapters_of("image") | whole("video")))}}


def no_adapters(folder: Path) -> dict[str, Any]:
    (folder / "all" / "ink" / "image").mkdir(parents=True)
    return {"folder": str(folder / "all")}


def wrong_rank(folder: Path) -> dict[str, Any]:
    return {"named": {"ink": str(native(folder / "ink", rank=8))}}


def special_peft(folder: Path) -> dict[str, Any]:
    return {"named": {"ink": str(peft(folder / "ink", use_dora=True))}}


def no_alpha(folder: Path) -> dict[str, Any]:
    return {"named": {"ink": str(diffusers(folder / "ink.safetensors", {"transformer.r": 4}))}}


def damaged(folder: Path) -> dict[str, Any]:
    (peft(folder / "ink") / ADAPTER_FILE).write_bytes(b"not a file of tensors")
    return {"named": {"ink": str(folder / "ink")}}


def pipe(folder: Path) -> dict[str, Any]:
    (peft(folder / "ink") / ADAPTER_FILE).unlink()
    os.mkfifo(folder / "ink" / ADAPTER_FILE)
    return {"named": {"ink": str(folder / "ink")}}


def bad_name(folder: Path) -> dict[str, Any]:
    return {"folder": str(peft(folder / "all" / "ink and oil").parent)}


def twice(folder: Path) -> dict[str, Any]:
    return {"folder": str(peft(folder / "all" / "ink").parent), "named": {"ink": "elsewhere"}}


def missing(folder: Path) -> dict[str, Any]:
    return {"named": {"ink": os.path.relpath(folder / "ink")}}


def missing_checkpoint(folder: Path) -> dict[str, Any]:
    return {"named": {"ink": os.path.relpath(folder / "ink") + ":400"}}


def missing_folder(folder: Path) -> dict[str, Any]:
    return {"folder": os.path.relpath(folder / "all")}


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (other_agent, "adapters `ink`: .* has some for `refine`; the agents that can have adapters are image, video"),
        (whole_weights, "adapters `ink`: .* has whole weights of video"),
        (no_adapters, "adapters `ink`: .*: image has no LoRA adapters"),
        (wrong_rank, "adapters `ink`: .*`a.to_q.lora_A.weight` has rank 4, its settings say 8"),
        (special_peft, "adapters `ink`: .*expected plain LoRA adapters, got `use_dora`"),
        (no_alpha, "adapters `ink`: .*expected a rank of at least 1 and a number as alpha"),
        (damaged, "adapters `ink`: .*cannot be read as LoRA adapters"),
        (pipe, "adapters `ink`: .*"),
        (bad_name, "serving.adapters.folder: .*/ink and oil: expected a name of letters"),
        (missing, "adapters `ink`: /.*/ink does not exist; expected a run, .* from the working directory"),
        (missing_checkpoint, "adapters `ink`: /.*/ink does not exist; expected a run"),
        (missing_folder, "serving.adapters.folder: /.*/all: No such file"),
        (twice, "serving.adapters: two are named `ink`"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name_in_one_line(
    tmp_path: Path, made: Callable[[Path], dict[str, Any]], told: str
) -> None:
    with pytest.raises(CheckpointError, match=f"^{told}") as refused:
        read(made(tmp_path))
    assert "\n" not in str(refused.value)


def test_adapters_together_have_a_bound_that_the_largest_is_named_for(tmp_path: Path) -> None:
    peft(tmp_path / "ink")
    nbytes = (tmp_path / "ink" / ADAPTER_FILE).stat().st_size
    assert read({"folder": str(tmp_path)}, nbytes).allowed_for("image")
    with pytest.raises(
        CheckpointError, match=f"those for image have {nbytes} bytes, the largest is `ink`; .* {nbytes - 1}"
    ):
        read({"folder": str(tmp_path)}, nbytes - 1)


def test_a_name_cannot_be_a_path() -> None:
    for name in ("../ink", "a/b", "", ".ink", "ink:2", "x" * 65):
        with pytest.raises(SettingsError, match=r"serving\.adapters\.named"):
            load_config(TINY, [f"serving.adapters.named={json.dumps({name: 'runs/x'})}"])
