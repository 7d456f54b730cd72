"""The rows that an agent gives for its z are checked before training starts."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mora_environment.interface import Interface
from mora_runtime.errors import ProtocolError
from mora_runtime.tensors.tensor_store import TensorRef
from mora_trainer.chain.stage import Stage
from mora_trainer.preparation import initial_embeddings
from mora_trainer.settings import ModulationSettings


class Received(TensorRef):
    """A tensor of this process in place of a received one."""

    def __init__(self, value: torch.Tensor) -> None:
        self.value = value

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.value.dtype

    def tensor(self, device: torch.device | str | None = None) -> torch.Tensor:
        return self.value


def z_from(rows: torch.Tensor) -> torch.Tensor:
    client: Any = SimpleNamespace(call=lambda *_, **__: SimpleNamespace(values={"rows": Received(rows)}))
    stage = Stage(
        "second", client, Interface(has_modulation=True), loss_weight=0.0, trains=True, is_last=False, deadline_s=1.0
    )
    return initial_embeddings([stage], ModulationSettings(), seed=0)["second"]


def test_rows_of_an_agent_start_its_z() -> None:
    assert torch.equal(z_from(torch.ones(2, 3)), torch.ones(2, 3))


@pytest.mark.parametrize(
    ("rows", "came"),
    [
        (torch.ones(3), r"got torch.float32 \(3,\)$"),
        (torch.ones(0, 3), r"got torch.float32 \(0, 3\)$"),
        (torch.tensor(1.0), r"got torch.float32 \(\)$"),
        (torch.full((2, 3), float("nan")), r"got torch.float32 \(2, 3\) with numbers that are not finite$"),
    ],
)
def test_rows_that_cannot_start_a_z_are_refused(rows: torch.Tensor, came: str) -> None:
    with pytest.raises(ProtocolError, match=r"^second\.modulation_rows: expected `rows` as finite numbers .*" + came):
        z_from(rows)
