"""Adapters for single calls: with them the model is the one that was loaded with them, without them the plain one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from mora_env_sd3.__main__ import KINDS
from mora_env_sd3.agent import Sd3Agent
from mora_env_sd3.options import Sd3Options
from mora_environment.adapters.export_command import answer_export
from mora_environment.adapters.names import ADAPTERS, DIFFUSERS_FILE, PEFT_PREFIX
from mora_environment.server import AgentBuilder
from mora_runtime.errors import BadArgument, CheckpointError
from mora_runtime.rpc.server_settings import AgentSettings, AllowedAdapters
from mora_training.adapters import load_adapters, merged_weights
from mora_training.training_settings import ADAPTER_FILE, TrainingServerSettings
from safetensors.torch import load_file, save_file

from tests.adapters_by_hand import ALPHA, write_adapters

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
CPU = torch.device("cpu")
MOST_PIXELS_FROM_MERGED = 1  # of 255: the sums of merged weights are rounded in another order


def picture(agent: Any) -> torch.Tensor:
    made: torch.Tensor = agent.text_to_image(["a red circle", "a blue square"], [5, 6])["outputs"].clone()
    return made


def allowed(name: str, path: Path, **fields: Any) -> AllowedAdapters:
    path = path / ADAPTER_FILE if path.is_dir() else path
    content = path.read_bytes()
    known = {"name": name, "file": str(path), "nbytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return AllowedAdapters(**{"alpha": ALPHA, **known, **fields})


@pytest.fixture(scope="module")
def folders(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    weights = model / "transformer" / "diffusion_pytorch_model.safetensors"
    target = tmp_path_factory.mktemp("adapters")
    return {name: write_adapters(weights, target / name, seed) for seed, name in enumerate(("ink", "oil"))}


def served(options: Sd3Options, *choices: AllowedAdapters, adapters: Path | None = None) -> dict[str, Any]:
    agent = AgentSettings(
        kind="sd3", options=options.model_dump(mode="json"), adapters=None if adapters is None else str(adapters),
        allowed_adapters=choices,
    )  # fmt: skip
    settings = TrainingServerSettings(role="image.0", name="image", run_dir="none", agents={"image": agent})
    return dict(AgentBuilder(KINDS, "mora_env_sd3").build(settings))


def loaded(options: Sd3Options, folder: Path) -> Any:
    agent = Sd3Agent(options, CPU)
    load_adapters(agent.module(), folder)
    return agent


def test_each_is_the_model_that_was_loaded_with_it_and_none_is_the_plain_model(
    options: Sd3Options, agent: Sd3Agent, folders: dict[str, Path]
) -> None:
    plain = picture(agent)
    expected = {name: picture(loaded(options, folder)) for name, folder in folders.items()}
    assert len({made.numpy().tobytes() for made in (plain, *expected.values())}) == 3, "they differ from each other"
    agents = served(options, *(allowed(name, folder) for name, folder in folders.items()))
    assert agents[ADAPTERS].choices() == {"names": ["ink", "oil"], "unfit": []}
    assert torch.equal(picture(agents["image"]), plain)
    for name in ("ink", "oil", "ink"):
        agents[ADAPTERS].use(name, 1.0)
        assert torch.equal(picture(agents["image"]), expected[name])
    agents[ADAPTERS].use(None, 1.0)
    assert torch.equal(picture(agents["image"]), plain)


@pytest.mark.parametrize(
    ("chosen", "file", "prefix"),
    [("peft", ADAPTER_FILE, PEFT_PREFIX), ("diffusers-lora", DIFFUSERS_FILE, "transformer.")],
)
def test_exported_adapters_make_the_same_picture(
    options: Sd3Options, folders: dict[str, Path], tmp_path: Path, chosen: str, file: str, prefix: str
) -> None:
    request = {
        "kind": "sd3", "options": options.model_dump(mode="json"), "source": "agents.image", "weights": None,
        "format": chosen, "folder": str(folders["ink"]), "target": str(tmp_path),
    }  # fmt: skip
    assert "error" not in answer_export(KINDS, "mora_env_sd3", request)
    agents = served(options, allowed("ink", tmp_path / file, prefix=prefix))
    agents[ADAPTERS].use("ink", 1.0)
    assert torch.equal(picture(agents["image"]), picture(loaded(options, folders["ink"])))


def test_merged_weights_make_the_same_picture_to_the_stated_bound(
    options: Sd3Options, agent: Sd3Agent, folders: dict[str, Path]
) -> None:
    agents = served(options, allowed("ink", folders["ink"]))
    agents[ADAPTERS].use("ink", 1.0)
    other = loaded(options, folders["ink"]).module()
    merged = Sd3Agent(options, CPU)
    merged.module().load_state_dict(merged_weights(other))
    apart = (picture(agents["image"]).int() - picture(merged).int()).abs()
    assert apart.max() <= MOST_PIXELS_FROM_MERGED
    assert (picture(agent).int() - picture(merged).int()).abs().max() > 8 * MOST_PIXELS_FROM_MERGED


def test_the_scale_multiplies_alpha(options: Sd3Options, folders: dict[str, Path]) -> None:
    agents = served(
        options, allowed("whole", folders["ink"]), allowed("half", folders["ink"], alpha=ALPHA / 2)
    )  # fmt: skip
    agents[ADAPTERS].use("half", 1.0)
    half = picture(agents["image"])
    agents[ADAPTERS].use("whole", 0.5)
    assert torch.equal(picture(agents["image"]), half)


def test_adapters_of_the_served_checkpoint_are_off_while_others_are_used(
    options: Sd3Options, folders: dict[str, Path]
) -> None:
    agents = served(options, allowed("ink", folders["ink"]), adapters=folders["oil"])
    oil = picture(agents["image"])
    agents[ADAPTERS].use("ink", 1.0)
    assert torch.equal(picture(agents["image"]), picture(loaded(options, folders["ink"])))
    agents[ADAPTERS].use(None, 1.0)
    assert torch.equal(picture(agents["image"]), oil)
    assert not any(parameter.requires_grad for parameter in agents["image"].module().parameters())


def test_an_unknown_name_is_refused_with_the_known_ones(options: Sd3Options, folders: dict[str, Path]) -> None:
    agents = served(options, allowed("ink", folders["ink"]))
    with pytest.raises(BadArgument, match="expected one of ink, got `oil`"):
        agents[ADAPTERS].use("oil", 1.0)


def test_a_file_that_has_changed_since_the_start_is_not_loaded(
    options: Sd3Options, folders: dict[str, Path], tmp_path: Path
) -> None:
    before = allowed("ink", folders["ink"])
    tensors = load_file(folders["ink"] / ADAPTER_FILE)
    tensors[next(iter(tensors))][0] += 1
    save_file(tensors, tmp_path / ADAPTER_FILE)
    with pytest.raises(CheckpointError, match=r"adapters `ink`: .* has changed since the start"):
        served(options, before.model_copy(update={"file": str(tmp_path / ADAPTER_FILE)}))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"a.to_q.lora_A.weight": (4, 8), "a.to_q.lora_B.weight": (8, 4)},
            "layer `a.to_q`: the model has no such layer",
        ),
        ({"norm_out.linear.lora_A.weight": (4, 8)}, "has lora_A.weight but no lora_B.weight"),
        ({"norm_out.linear.lora_A.weight": (4, 8), "norm_out.linear.lora_B.weight": (8, 3)}, "expected the shapes"),
        ({"norm_out.linear.alpha": (1,)}, "unknown tensor `norm_out.linear.alpha`"),
    ],
)
def test_adapters_of_another_model_are_refused_or_left_out_by_layer(
    options: Sd3Options, tmp_path: Path, changes: dict[str, tuple[int, ...]], told: str
) -> None:
    save_file({name: torch.zeros(shape) for name, shape in changes.items()}, tmp_path / ADAPTER_FILE)
    with pytest.raises(CheckpointError, match=f"^adapters `foreign`: .*{told}"):
        served(options, allowed("foreign", tmp_path))
    agents = served(options, allowed("foreign", tmp_path, must_fit=False))
    choices = agents[ADAPTERS].choices()
    assert choices["names"] == []
    assert told in choices["unfit"][0]
