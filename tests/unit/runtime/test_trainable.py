"""Targets and patterns that match nothing are refused with the nearest name, even next to others that match."""

import pytest
import torch
from mora_runtime.errors import SettingsError
from mora_training.trainable import select_trainable
from mora_training.training_settings import TrainableSettings


class Attention(torch.nn.Module):
    """The layers of an attention, under the names that diffusers gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_k = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        self.to_out = torch.nn.ModuleList([torch.nn.Linear(4, 4), torch.nn.Dropout(0.0)])
        self.norm = torch.nn.LayerNorm(4)


@pytest.fixture
def module() -> torch.nn.Module:
    return torch.nn.ModuleDict({"blocks": torch.nn.ModuleList([Attention(), Attention()])})


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (("to_q", "to_kk"), "`to_kk` matches no layer of this model; the nearest name is `to_k`"),
        (("to_out.1.lin",), "`to_out.1.lin` matches no layer of this model; the nearest name is `to_out.0`"),
        (("zzz",), "`zzz` matches no layer of this model; its layers are to_q, to_k, to_out.0"),
        ((), "`lora_targets` is empty"),
    ],
)
def test_a_target_without_a_layer_is_refused(module: torch.nn.Module, targets: tuple[str, ...], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        select_trainable(module, TrainableSettings(scope="lora", lora_targets=targets))
    assert said in str(caught.value)
    assert all(parameter.requires_grad for parameter in module.parameters()), "nothing has changed"


def test_a_pattern_without_a_parameter_is_refused_next_to_one_with_some(module: torch.nn.Module) -> None:
    with pytest.raises(SettingsError, match=r"`blocks.0.to_kk.\*` matches none of 16 parameters; the nearest name is"):
        select_trainable(module, TrainableSettings(scope="patterns", patterns=("*.to_q.*", "blocks.0.to_kk.*")))
    with pytest.raises(SettingsError, match="no pattern is given"):
        select_trainable(module, TrainableSettings(scope="patterns"))


def test_a_pattern_selects_what_it_matches(module: torch.nn.Module) -> None:
    select_trainable(module, TrainableSettings(scope="patterns", patterns=("*.to_q.*",)))
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert trained == {f"blocks.{block}.to_q.{kind}" for block in (0, 1) for kind in ("weight", "bias")}
