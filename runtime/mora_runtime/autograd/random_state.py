"""The state of torch's default random generators."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class RandomState:
    """The state of the CPU's default generator, and of the device's if it is a CUDA device."""

    device: torch.device
    cpu: torch.Tensor
    cuda: torch.Tensor | None

    @classmethod
    def now(cls, device: torch.device) -> RandomState:
        """Capture the current state."""
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(device, torch.get_rng_state(), cuda)

    @classmethod
    def taken_from(cls, tensors: dict[str, torch.Tensor], device: torch.device) -> RandomState:
        """Remove the tensors that `tensors` added to a checkpoint, and rebuild the state from them."""
        return cls(device, tensors.pop("torch_rng"), tensors.pop("cuda_rng", None))

    def tensors(self) -> dict[str, torch.Tensor]:
        """The state as tensors for a checkpoint."""
        return {"torch_rng": self.cpu} if self.cuda is None else {"torch_rng": self.cpu, "cuda_rng": self.cuda}

    def restore(self) -> None:
        """Set the generators to this state, so that the same random numbers follow."""
        torch.set_rng_state(self.cpu)
        if self.cuda is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(self.cuda, self.device)
