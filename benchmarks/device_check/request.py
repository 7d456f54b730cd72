"""What the process of a part is told, as a file of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Request:
    """One part and its settings.

    Attributes:
        part: its name.
        is_dry: tiny sizes on the CPU.
        device: cpu or cuda:N, as torch names it.
        folder: for the part's own files.
        chain: configuration of the tiny chain on the device.
        options: of the agent at published size (tiny in a dry run), for parts that run one agent.
        work: `CostRequest` of that agent.
        kernels: settings of its server that choose kernels.
    """

    part: str
    is_dry: bool
    device: str
    folder: str
    chain: str
    options: dict[str, Any]
    work: dict[str, Any]
    kernels: dict[str, Any]

    @property
    def torch_device(self) -> torch.device:
        import torch  # a second, which a part that needs none does not spend

        return torch.device(self.device)

    @property
    def path(self) -> Path:
        return Path(self.folder)

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> Request:
        return cls(**json.loads(file.read_text(encoding="utf-8")))
