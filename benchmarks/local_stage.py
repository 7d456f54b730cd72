"""One agent of the single-process chain: the agent of its environment, called without a server."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from mora_environment.kind import imported
from mora_runtime.schema import read_settings


class LocalStage:
    """An agent with its prompts and targets.

    Args:
        spec: `name`, `package` and `kind` of the agent, its `options`, the `prompt_keys` of all samples in its server,
            `loss_weight` and `trains`.
        device: of the models.
    """

    def __init__(self, spec: Mapping[str, Any], device: torch.device, *, is_last: bool) -> None:
        self.name: str = spec["name"]
        self.loss_weight: float = spec["loss_weight"]
        self._prompts: list[str] = spec["prompt_keys"]
        self._targets: list[str] = []
        kind = importlib.import_module(f"{spec['package']}.__main__").KINDS[spec["kind"]]
        options = read_settings(kind.options, spec["options"], source=f"agents.{self.name}.options")
        self.interface = kind.interface_of(options)
        self._method = "loss" if is_last and (self.interface.takes or not self.interface.gives) else "forward"
        if spec["kind"] == "opensora":
            from benchmarks.local_opensora import LocalOpenSora  # its package is not in every environment

            self._agent: Any = LocalOpenSora(options, device)
        else:
            self._agent = imported(kind.build, owner=self.name)(options, device)
        if not spec["trains"] and not self.interface.is_critic:
            self._agent.module().requires_grad_(False)

    @property
    def needs_targets(self) -> bool:
        """Whether its loss is wanted, and compares with clips."""
        return bool(self.loss_weight > 0.0 and self.interface.needs_targets)

    def prepare(self, prompts: list[str], clips: list[torch.Tensor]) -> None:
        """Encode the prompts and store the clips, uint8 (F, H, W, 3), of all samples."""
        if self.interface.has_text:
            self._agent.encode(prompts=prompts)
        if self.needs_targets:
            self._targets = [self._agent.store_target(pixels=clip)["key"] for clip in clips]

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """Parameters of the model that trains, by name; none of a critic."""
        return {} if self.interface.is_critic else dict(self._agent.module().named_parameters())

    def run(
        self, z: torch.Tensor | None, samples: list[int], seeds: list[int], inputs: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Outputs and loss for some samples, from the outputs of the stage before."""
        arguments: dict[str, Any] = {name: inputs[name] for name in self.interface.takes}
        prompts = [self._prompts[index] for index in samples]
        if self.interface.is_critic:
            arguments["prompts"] = prompts
        else:
            arguments.update(z=z, prompt_keys=prompts, seeds=seeds)
        if self.needs_targets:
            arguments["target_keys"] = [self._targets[index] for index in samples]
        values = getattr(self._agent, self._method)(**arguments)
        # dense in C order, as tensors that leave a server are
        return {name: value.contiguous() for name, value in values.items() if isinstance(value, torch.Tensor)}
