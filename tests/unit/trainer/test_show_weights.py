"""Weights that a server shows between two rounds do not change the training that follows."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mora_runtime.errors import CheckpointError, StepProtocolError
from mora_training import optimizer_agent
from mora_training.optimizer_agent import WEIGHTS_FILE, OptimizerAgent
from mora_training.training_settings import GroupSettings, OptimizerAgentSettings, OptimizerSettings
from safetensors.torch import load_file, save_file

pytestmark = [
    pytest.mark.usefixtures("joined_once"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning"),
]
CPU = torch.device("cpu")
STEP_2 = "step-00000002"


@pytest.fixture
def joined_once(group: GroupSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do nothing, because every server of a test is in the group already."""
    monkeypatch.setattr(optimizer_agent, "join_group", lambda *_: None)


class Model:
    """An agent with a small module, whose loss draws from the global generator."""

    def __init__(self, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        self._module = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 3)).to(dtype)

    def module(self) -> torch.nn.Module:
        return self._module

    def model_config(self) -> dict[str, Any]:
        return {"_class_name": "Sequential"}


class Server:
    """A server's training agent, called like by its coordinator."""

    def __init__(self, checkpoints: Path, dtype: torch.dtype = torch.float32) -> None:
        model = Model(dtype)
        self.module = model.module()
        self._dtype = dtype
        self._checkpoints = checkpoints
        settings = OptimizerAgentSettings(
            group=GroupSettings(rank=0, world_size=1, rendezvous="file:///nowhere"),
            optimizer=OptimizerSettings(ema_decay=0.9),
        )
        self.agent = OptimizerAgent(model, settings, CPU, checkpoints, "image")

    def train(self, first: int, last: int) -> None:
        for step in range(first, last):
            self.module(torch.randn(4, 6, dtype=self._dtype)).float().square().mean().backward()
            assert self.agent.prepare(step)["finite"]
            self.agent.commit(step, alpha=1.0, learning_rate=0.1, clip=1.0)

    def save(self, step: int) -> str:
        folder = f"step-{step:08d}"
        self.agent.save(f"{folder}.tmp")
        assert self.agent.saved(30.0)["done"]
        (self._checkpoints / f"{folder}.tmp").rename(self._checkpoints / folder)
        return folder

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in self.module.state_dict().items()}

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that the next steps depend on."""
        optimizer = self.agent._optimizer
        assert optimizer is not None
        found = {name: value.clone() for name, value in optimizer.state().items()}
        return {**self.weights(), **found, "generator": torch.get_rng_state()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_restoring_after_showing_weights_equals_a_plain_resume_to_the_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    server = Server(tmp_path, dtype)
    server.train(0, 2)
    server.save(2)
    server.train(2, 5)
    places = [parameter.data_ptr() for parameter in server.module.parameters()]
    assert server.agent.show_weights(STEP_2, average=True) == {"read": True}
    torch.randn(7)  # whatever draws meanwhile
    average = load_file(tmp_path / STEP_2 / "image" / "ema" / WEIGHTS_FILE)
    assert same(server.weights(), {name: value.to(dtype) for name, value in average.items()})
    server.agent.load(STEP_2)
    restored = server.state()
    assert [parameter.data_ptr() for parameter in server.module.parameters()] == places
    server.train(2, 4)
    continued = server.state()

    fresh = Server(tmp_path, dtype)
    fresh.agent.load(STEP_2)
    assert same(fresh.state(), restored)
    fresh.train(2, 4)
    assert same(fresh.state(), continued)


def test_showing_weights_changes_neither_optimizer_nor_generator(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.train(0, 2)
    server.save(2)
    before, weights = server.state(), server.weights()
    server.agent.show_weights(STEP_2, average=True)
    after = server.state()
    assert not same(server.weights(), weights)
    assert same({**after, **weights}, before)


def test_weights_that_the_module_already_has_are_not_read_again(tmp_path: Path) -> None:
    server = Server(tmp_path)
    assert server.agent.show_weights(None, average=False) == {"read": False}
    server.train(0, 2)
    with pytest.raises(StepProtocolError, match="weights from its start have been replaced; start this server"):
        server.agent.show_weights(None, average=False)
    server.save(2)
    assert server.agent.show_weights(STEP_2, average=False) == {"read": False}
    server.train(2, 3)
    expected = load_file(tmp_path / STEP_2 / "image" / "weights" / WEIGHTS_FILE)
    assert not same(server.weights(), expected)
    assert server.agent.show_weights(STEP_2, average=False) == {"read": True}
    assert same(server.weights(), expected)


def test_a_step_on_weights_that_are_only_shown_is_refused(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.train(0, 2)
    server.save(2)
    server.agent.show_weights(STEP_2, average=True)
    with pytest.raises(StepProtocolError, match="expected `load` of a checkpoint before the first step"):
        server.train(2, 3)
    server.agent.load(STEP_2)
    server.train(2, 3)


def test_weights_of_other_names_or_shapes_are_refused_by_name_and_change_nothing(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.train(0, 2)
    server.save(2)
    server.train(2, 3)
    path = tmp_path / STEP_2 / "image" / "weights" / WEIGHTS_FILE
    good, before = load_file(path), server.weights()
    save_file({**good, "1.bias": torch.zeros(4)}, str(path))
    with pytest.raises(CheckpointError, match=r"image/weights/.*`1.bias`: expected shape \(3,\), got \(4,\)"):
        server.agent.show_weights(STEP_2, average=False)
    save_file({name: value for name, value in good.items() if name != "0.weight"}, str(path))
    with pytest.raises(CheckpointError, match=r"`0\.weight` is missing"):
        server.agent.show_weights(STEP_2, average=False)
    save_file({**good, "2.weight": torch.zeros(1)}, str(path))
    with pytest.raises(CheckpointError, match=r"`2\.weight` is unknown"):
        server.agent.show_weights(STEP_2, average=False)
    path.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        server.agent.show_weights(STEP_2, average=False)
    assert same(server.weights(), before)


def test_moments_made_after_a_checkpoint_without_any_do_not_outlive_its_restore(tmp_path: Path) -> None:
    server = Server(tmp_path)
    folder = server.save(1)  # as after a step that was skipped
    server.train(1, 3)
    server.agent.load(folder)
    fresh = Server(tmp_path)
    fresh.agent.load(folder)
    assert same(server.state(), fresh.state())
