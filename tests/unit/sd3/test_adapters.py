"""LoRA adapters after they have left the server that trained them: the picture changes by what training gave.

diffusers and peft load what is exported; alpha is not the rank, so a loader that does not know alpha fails here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from mora_env_sd3.__main__ import KINDS
from mora_env_sd3.agent import Sd3Agent
from mora_env_sd3.options import Sd3Options
from mora_environment.adapters.export_command import answer_export
from mora_environment.server import AgentBuilder
from mora_runtime.errors import CheckpointError, SettingsError
from mora_runtime.rpc.server_settings import AgentSettings
from mora_training.adapters import adapter_tensors, load_adapters
from mora_training.optimizer_agent import OptimizerAgent
from mora_training.training_settings import (
    ADAPTER_FILE,
    GroupSettings,
    OptimizerAgentSettings,
    OptimizerSettings,
    TrainableSettings,
    TrainingServerSettings,
)
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
CPU = torch.device("cpu")
PROMPT = "a red circle moves left over the sea"
TRAINABLE = TrainableSettings(scope="lora", lora_rank=4, lora_alpha=20.0)
STEP_2 = "step-00000002"


@dataclass
class Trained:
    """A server after two steps of LoRA, and the checkpoint that it wrote."""

    agent: Sd3Agent
    participant: OptimizerAgent
    checkpoints: Path
    reports: list[dict[str, Any]]  # of the commits
    untrained: torch.Tensor  # picture before the first step
    picture: torch.Tensor  # and after the last

    def folder(self, part: str = "weights") -> Path:
        return self.checkpoints / STEP_2 / "image" / part


def picture(agent: Sd3Agent) -> torch.Tensor:
    made: torch.Tensor = agent.text_to_image([PROMPT], [5])["outputs"]
    return made


def velocity(transformer: torch.nn.Module) -> torch.Tensor:
    """The transformer's output for fixed inputs."""
    generator = torch.Generator().manual_seed(3)
    config: Any = transformer.config
    with torch.no_grad():
        made: torch.Tensor = transformer(
            hidden_states=torch.randn(2, config.in_channels, 4, 4, generator=generator),
            encoder_hidden_states=torch.randn(2, 9, config.joint_attention_dim, generator=generator),
            pooled_projections=torch.randn(2, config.pooled_projection_dim, generator=generator),
            timestep=torch.tensor([300.0, 700.0]),
            return_dict=False,
        )[0]
    return made


@pytest.fixture(scope="module")
def trained(options: Sd3Options, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    checkpoints = tmp_path_factory.mktemp("run") / "checkpoints"
    group = GroupSettings(rank=0, world_size=1, rendezvous=f"file://{tmp_path_factory.mktemp('group') / 'file'}")
    settings = OptimizerAgentSettings(
        group=group, trainable=TRAINABLE, optimizer=OptimizerSettings(ema_decay=0.5, weight_decay=0.0)
    )
    with mock.patch.dict(os.environ):  # joining sets variables
        agent = Sd3Agent(options, CPU)
        untrained = picture(agent)
        participant = OptimizerAgent(agent, settings, CPU, checkpoints, "image")
        assert torch.equal(picture(agent), untrained), "B starts at zero"
        reports = [take_step(agent, participant, step) for step in range(2)]
        participant.save(f"{STEP_2}.tmp")
        assert participant.saved(60.0)["done"]
        (checkpoints / f"{STEP_2}.tmp").rename(checkpoints / STEP_2)
        yield Trained(agent, participant, checkpoints, reports, untrained, picture(agent))
        assert participant._optimizer is not None
        participant._optimizer._window.close()  # DeepSpeed reduces once more when it is collected, in the group
        dist.destroy_process_group()


def take_step(agent: Sd3Agent, participant: OptimizerAgent, step: int) -> dict[str, Any]:
    keys = agent.encode(prompts=[PROMPT])["keys"]
    agent.forward(z=None, prompt_keys=keys, seeds=[5])["images"].square().mean().backward()
    assert participant.prepare(step)["finite"]
    report: dict[str, Any] = participant.commit(step, alpha=1.0, learning_rate=0.02, clip=1.0)
    return report


def exported(trained: Trained, options: Sd3Options, target: Path, chosen: str, part: str = "weights") -> Path:
    target.mkdir()
    request = {
        "kind": "sd3", "options": options.model_dump(mode="json"), "source": "agents.image", "weights": None,
        "format": chosen, "folder": str(trained.folder(part)), "target": str(target),
    }  # fmt: skip
    answer = answer_export(KINDS, "mora_env_sd3", request)
    assert "error" not in answer, answer
    return target


def transformer_of(options: Sd3Options) -> SD3Transformer2DModel:
    return SD3Transformer2DModel.from_pretrained(options.model, subfolder="transformer")


def test_the_start_tells_the_adapted_layers_and_the_first_steps_that_every_tensor_changes(trained: Trained) -> None:
    counts = trained.participant.counts()
    layers = sum(name.endswith(".lora_A.weight") for name in load_file(trained.folder() / ADAPTER_FILE))
    assert counts["num_adapted_layers"] == layers > 0
    first, second = trained.reports
    assert first == {"num_changed": layers, "num_trained": 2 * layers}, "A has no gradient while B is zero"
    assert second == {"num_changed": 2 * layers, "num_trained": 2 * layers}


def test_a_misspelled_target_is_refused_by_the_real_model(options: Sd3Options) -> None:
    from mora_training.trainable import select_trainable

    module = Sd3Agent(options, CPU).module()
    with pytest.raises(SettingsError, match="`to_kk` matches no layer of this model; the nearest name is `to_k`"):
        select_trainable(module, TrainableSettings(scope="lora", lora_targets=("to_q", "to_kk")))


def test_a_server_with_the_adapters_makes_the_trained_picture_to_the_bit(trained: Trained, options: Sd3Options) -> None:
    assert not torch.equal(trained.picture, trained.untrained)
    agent = AgentSettings(kind="sd3", options=options.model_dump(mode="json"), adapters=str(trained.folder()))
    settings = TrainingServerSettings(
        role="image.0", name="image", run_dir=str(trained.checkpoints.parent), agents={"image": agent}
    )
    served: Any = AgentBuilder(KINDS, "mora_env_sd3").build(settings)["image"]
    assert torch.equal(picture(served), trained.picture)
    assert not any(parameter.requires_grad for parameter in served.module().parameters())


def test_the_average_is_another_picture(trained: Trained, options: Sd3Options) -> None:
    agent = Sd3Agent(options, CPU)
    load_adapters(agent.module(), trained.folder("ema"))
    assert not torch.equal(velocity(agent.module()), velocity(trained.agent.module()))


def test_diffusers_loads_every_key_with_alpha(
    trained: Trained, options: Sd3Options, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = exported(trained, options, tmp_path / "image", "diffusers-lora")
    pipeline = StableDiffusion3Pipeline.from_pretrained(options.model)
    untrained = velocity(pipeline.transformer)
    pipeline.load_lora_weights(str(folder))
    # diffusers warns about keys that fit nothing, and, because there are none for them, about the text encoders
    warnings = [record.message for record in caplog.records if "associated to CLIPText" not in record.message]
    assert not [warning for warning in warnings if "keys" in warning], warnings
    own = adapter_tensors(trained.agent.module())
    assert len(pipeline.transformer.peft_config) == 1
    (name,) = pipeline.transformer.peft_config
    assert pipeline.transformer.peft_config[name].lora_alpha == 20
    loaded = {key for key, _ in pipeline.transformer.named_parameters() if f".{name}." in key}
    assert len(loaded) == len(own)
    expected = velocity(trained.agent.module())
    assert torch.allclose(velocity(pipeline.transformer), expected, atol=1e-5, rtol=0)
    assert (untrained - expected).abs().max() > 1e-3, "the adapters change the model by more than the tolerance"


def test_peft_loads_every_key_with_alpha(trained: Trained, options: Sd3Options, tmp_path: Path) -> None:
    from peft import PeftModel

    folder = exported(trained, options, tmp_path / "image", "peft")
    model = PeftModel.from_pretrained(transformer_of(options), str(folder))
    expected = load_file(trained.folder() / ADAPTER_FILE)
    loaded = {key: value for key, value in model.state_dict().items() if ".lora_" in key}
    assert len(loaded) == len(expected)
    for key, value in loaded.items():
        own = expected[key.removeprefix("base_model.model.").replace(".default.", ".")]
        assert torch.equal(value, own)
    assert torch.allclose(velocity(model.base_model.model), velocity(trained.agent.module()), atol=1e-5, rtol=0)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == f"{options.model}/transformer"


def test_merged_weights_are_those_of_a_plain_model(trained: Trained, options: Sd3Options, tmp_path: Path) -> None:
    folder = exported(trained, options, tmp_path / "image", "merged")
    merged = SD3Transformer2DModel.from_pretrained(folder)
    assert torch.allclose(velocity(merged), velocity(trained.agent.module()), atol=1e-5, rtol=0)
    plain = transformer_of(options).state_dict()
    found = merged.state_dict()
    assert found.keys() == plain.keys()
    changed = {name for name in plain if not torch.equal(plain[name], found[name])}
    adapted = {name.removesuffix(".lora_A.weight") for name in load_file(trained.folder() / ADAPTER_FILE)}
    assert changed == {f"{name}.weight" for name in adapted if not name.endswith(".lora_B.weight")}


def test_weights_that_are_shown_and_restored_are_the_adapters(trained: Trained) -> None:
    participant, agent = trained.participant, trained.agent
    expected = velocity(agent.module())
    assert participant.show_weights(STEP_2, average=True) == {"read": True}
    assert not torch.equal(velocity(agent.module()), expected)
    participant.load(STEP_2)
    assert torch.equal(velocity(agent.module()), expected)


def changed_checkpoint(trained: Trained, target: Path, settings: dict[str, Any], drop: str | None = None) -> Path:
    """A copy of the adapters with other settings, or without a tensor."""
    target.mkdir()
    tensors = load_file(trained.folder() / ADAPTER_FILE)
    save_file({name: value for name, value in tensors.items() if name != drop}, target / ADAPTER_FILE)
    (target / "config.json").write_text(json.dumps({**TRAINABLE.model_dump(), **settings}))
    return target


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lora_rank": 8}, "has rank 4, its config.json says 8"),
        ({"lora_targets": ["to_q", "to_kk"]}, "do not fit the loaded model .* the nearest name is `to_k`"),
        ({"lora_targets": ["to_q"]}, "is unknown"),
        ({"scope": "all"}, "expected scope `lora`"),
        ({"lora_alfa": 3.0}, "did you mean `lora_alpha`"),
    ],
)
def test_adapters_that_do_not_fit_are_refused(
    trained: Trained, options: Sd3Options, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    folder = changed_checkpoint(trained, tmp_path / "image", settings)
    with pytest.raises(CheckpointError, match=said):
        load_adapters(Sd3Agent(options, CPU).module(), folder)


def test_a_missing_adapter_is_refused_and_not_left_at_its_start(
    trained: Trained, options: Sd3Options, tmp_path: Path
) -> None:
    missing = next(name for name in load_file(trained.folder() / ADAPTER_FILE) if "lora_B" in name)
    folder = changed_checkpoint(trained, tmp_path / "image", {}, drop=missing)
    with pytest.raises(CheckpointError, match=r"`.*lora_B.weight` is missing"):
        load_adapters(Sd3Agent(options, CPU).module(), folder)


def test_a_server_that_trains_takes_no_adapters(trained: Trained, options: Sd3Options, tmp_path: Path) -> None:
    agent = AgentSettings(kind="sd3", options=options.model_dump(mode="json"), adapters=str(trained.folder()))
    group = GroupSettings(rank=0, world_size=1, rendezvous="file:///nowhere")
    settings = TrainingServerSettings(
        role="image.0", name="image", run_dir=str(tmp_path), agents={"image": agent},
        training=OptimizerAgentSettings(group=group),
    )  # fmt: skip
    with pytest.raises(SettingsError, match=r"agents\.image\.adapters: expected none in a server that trains"):
        AgentBuilder(KINDS, "mora_env_sd3").build(settings)
