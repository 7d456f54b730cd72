"""`RUN[:STEP]` names a checkpoint, whose weights every agent of the same configuration loads."""

import hashlib
from pathlib import Path

import pytest
from adapter_run import adapters_of, whole, write_checkpoint
from mora_launch.checkpoints.adapter_folder import AdapterFolder
from mora_launch.checkpoints.trained_model import TrainedModel, named_checkpoint, trained_model, untrained_sha256
from mora_launch.config.train_config import load_config
from mora_launch.environments.agent_options import CheckedOptions
from mora_launch.environments.venvs import ROOT
from mora_launch.jobs.servers import ServerGroup
from mora_runtime.errors import CheckpointError, SettingsError
from mora_runtime.process.run_directory import RunDirectory
from mora_runtime.wire.messages import PROTOCOL_VERSION

TINY = ROOT / "configs" / "tiny.yaml"


def test_a_run_and_a_step_are_told_apart(tmp_path: Path) -> None:
    odd = tmp_path / "run:7"
    odd.mkdir()
    assert named_checkpoint("runs/a") == (Path("runs/a"), None)
    assert named_checkpoint("runs/a:12") == (Path("runs/a"), 12)
    assert named_checkpoint(str(odd)) == (odd, None)
    assert named_checkpoint(f"{odd}:3") == (odd, 3)
    with pytest.raises(CheckpointError, match="expected RUN or RUN:STEP"):
        named_checkpoint("runs/a:last")


def checked(weights: str | None, folder: Path | None) -> CheckedOptions:
    """An environment's answer about one agent."""
    return CheckedOptions(
        protocol=PROTOCOL_VERSION, options={}, components=(), interface=None, weights=weights,
        weights_folder=None if folder is None else str(folder),
    )  # fmt: skip


def test_initial_weights_have_a_hash_if_they_are_here_and_agents_without_weights_have_none(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    answers = {
        "image": checked("transformer", tmp_path), "video": checked("model", None), "taste": checked(None, None),
    }  # fmt: skip
    digest = hashlib.sha256(hashlib.sha256(b"weights").digest()).hexdigest()
    assert untrained_sha256(answers) == {"image": digest, "video": "not on this machine"}


def model(*names: str) -> TrainedModel:
    """A checkpoint with the weights of these agents."""
    return TrainedModel(Path("run"), 4, {name: Path("run") / name for name in names}, None, {})


def test_every_agent_loads_the_weights_of_a_checkpoint() -> None:
    config = model("image", "video").put_into(load_config(TINY, []))
    assert {name: agent.weights for name, agent in config.agents.items()} == {
        "image": "run/image", "video": "run/video",
    }  # fmt: skip


@pytest.mark.parametrize("names", [("image",), ("image", "video", "refine")])
def test_a_checkpoint_of_other_agents_is_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(CheckpointError, match="it belongs to another configuration"):
        model(*names).put_into(load_config(TINY, []))


def test_a_critic_needs_no_weights_in_a_checkpoint() -> None:
    critic = "agents.taste={environment: sd3, kind: critic}"
    config = model("image", "video").put_into(load_config(TINY, [critic, "losses={video: 1.0, taste: 0.1}"]))
    assert config.agents["taste"].weights is None


def test_a_lora_run_adds_its_adapters_to_the_models_of_the_configuration(tmp_path: Path) -> None:
    run = write_checkpoint(tmp_path / "run", adapters_of("image") | whole("video"))
    model = trained_model(run, None)
    folder = run / "checkpoints" / "step-00000004"
    assert model.adapters == {"image": AdapterFolder(folder / "image" / "weights", 1, 4, 20.0)}
    assert set(model.sha256) == {"image", "video"}
    config = model.put_into(load_config(TINY, ["agents.image.weights=own"]))
    image, video = config.agents["image"], config.agents["video"]
    assert (image.weights, image.adapters) == ("own", str(folder / "image" / "weights"))
    assert (video.weights, video.adapters) == (str(folder / "video" / "weights"), None)
    told = model.told({"image": "models/x"})
    assert told == (
        "checkpoint of step 4: image: LoRA adapters of 1 layer (rank 4, alpha 20) on models/x; video: whole weights; "
        "no z"
    )


def test_the_average_of_adapters_is_another_folder(tmp_path: Path) -> None:
    run = write_checkpoint(tmp_path / "run", adapters_of("image"))
    assert trained_model(run, None, average=True).adapters["image"].path.name == "ema"


@pytest.mark.parametrize("settings", [{"lora_rnk": 3}, {"lora_alpha": None}])
def test_adapters_with_unknown_settings_are_refused(tmp_path: Path, settings: dict[str, object]) -> None:
    run = write_checkpoint(tmp_path / "run", adapters_of("image", **settings))
    with pytest.raises(CheckpointError, match="image/weights: expected LoRA adapters and their settings"):
        trained_model(run, None)


def test_training_on_adapters_is_refused_before_anything_starts(tmp_path: Path) -> None:
    config = load_config(TINY, ["agents.image.adapters=somewhere"])
    with RunDirectory.create(tmp_path / "run") as directory, pytest.raises(SettingsError) as caught:
        ServerGroup(config, {}, directory)
    assert "agents.image.adapters: adapters are loaded to generate, and cannot be trained on" in str(caught.value)
    assert "--format merged" in str(caught.value)
