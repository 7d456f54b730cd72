"""The same chain in ONE process: the reference for parity and for the cost of the process border.

Runs in the environment of the chain's first agent (`python -m benchmarks.single_process`); other agents are imported
from the checkout. It reads one JSON command per line from standard input and answers each: `{"do": "gradients", "to":
FILE}`, `{"do": "steps", "count": N}`, `{"do": "state", "to": FILE}`, and `{"do": "loss_at", "agent": A, "parameter": P,
"index": I, "delta": D}` for finite differences.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks.local_stage import LocalStage


class SingleProcessChain:
    """All agents from the prompt to the loss in one autograd graph, and the paper's algorithm 1 in plain torch.

    Args:
        spec: written by `benchmarks.chain_session.ChainSession.write_spec`.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        torch.set_num_threads(spec["num_threads"])
        self._spec = spec
        device = torch.device(spec["device"])
        last = len(spec["agents"]) - 1
        self._stages = [
            LocalStage(agent, device, is_last=number == last) for number, agent in enumerate(spec["agents"])
        ]
        tensors = load_file(spec["tensors"])
        self.z = {
            stage.name: tensors[f"z.{stage.name}"].to(device).requires_grad_(True)
            for stage in self._stages
            if f"z.{stage.name}" in tensors
        }
        clips = [tensors[f"clip.{index}"] for index in range(len(spec["prompts"]))]
        for stage in self._stages:
            stage.prepare(spec["prompts"], clips)

    def parameters(self) -> dict[str, dict[str, torch.nn.Parameter]]:
        """Parameters by agent and name."""
        return {stage.name: stage.parameters() for stage in self._stages}

    def accumulate(self) -> float:
        """Forward and backward of every micro-batch; gradients of the mean loss add up. Returns the mean loss."""
        batches = self._spec["batches"]
        scale = 1.0 / len(batches)
        total = 0.0
        for batch in batches:
            losses = self._losses(batch["samples"], batch["seeds"])
            weights = {stage.name: stage.loss_weight for stage in self._stages}
            gradients = [torch.full_like(loss, scale * weights[name]) for name, loss in losses.items()]
            torch.autograd.backward(list(losses.values()), gradients)
            total += sum(weights[name] * float(loss.detach()) for name, loss in losses.items())
        return total / len(batches)

    def _losses(self, samples: list[int], seeds: dict[str, list[int]]) -> dict[str, torch.Tensor]:
        """The loss of every agent that adds one, by agent."""
        losses: dict[str, torch.Tensor] = {}
        values: dict[str, torch.Tensor] = {}
        for stage in self._stages:
            values = stage.run(self.z.get(stage.name), samples, seeds[stage.name], values)
            if stage.loss_weight > 0.0:
                losses[stage.name] = values["loss"]
        return losses

    @torch.no_grad()
    def loss_at(self, agent: str, parameter: str, index: int, delta: float) -> float:
        """Mean loss with `delta` added to one element of one parameter; the parameter is restored."""
        flat = self.parameters()[agent][parameter].view(-1)
        kept = flat[index].clone()
        flat[index] += delta
        batches = self._spec["batches"]
        losses = [self._weighted(self._losses(batch["samples"], batch["seeds"])) for batch in batches]
        flat[index] = kept
        return sum(losses) / len(losses)

    def _weighted(self, losses: dict[str, torch.Tensor]) -> float:
        weights = {stage.name: stage.loss_weight for stage in self._stages}
        return sum(weights[name] * float(loss.double()) for name, loss in losses.items())

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """One AdamW for each agent and one for each z, which is named `z.<agent>`."""
        made: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.AdamW(parameters.values(), lr=0.0, weight_decay=1e-2)
            for name, parameters in self.parameters().items()
            if parameters
        }
        return made | {f"z.{name}": torch.optim.AdamW([z], lr=0.0, weight_decay=0.0) for name, z in self.z.items()}

    def step(self, optimizers: dict[str, torch.optim.Optimizer]) -> dict[str, Any]:
        """Algorithm 1 by hand: gradients, one global clip, every z_i first, alpha_i from them, then every theta_i."""
        self.forget_gradients()
        loss = self.accumulate()
        groups = (*self.parameters().values(), self.z)
        everything = [p for parameters in groups for p in parameters.values() if p.grad is not None]
        norm = torch.sqrt(sum((p.grad.double() ** 2).sum() for p in everything))  # type: ignore[union-attr, arg-type]
        clip = min(1.0, self._spec["clip_norm"] / (float(norm) + 1e-6))
        for parameter in everything:
            parameter.grad.mul_(clip)  # type: ignore[union-attr]
        for name in self.z:
            _step(optimizers[f"z.{name}"], self._spec["modulation_learning_rates"][name])
        alphas = {name: 1.0 for name, parameters in self.parameters().items() if parameters}
        alphas.update({name: float(z.detach().double().norm()) / len(self.z) for name, z in self.z.items()})
        for name, alpha in alphas.items():
            _step(optimizers[name], alpha * self._spec["learning_rates"][name])
        for optimizer in optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        return {"loss": loss, "alphas": alphas, "gradient_norm": float(norm)}

    def forget_gradients(self) -> None:
        """Start a new sum."""
        for parameters in (*self.parameters().values(), self.z):
            for parameter in parameters.values():
                parameter.grad = None

    def gradients(self) -> dict[str, torch.Tensor]:
        """Gradients accumulated so far, named `<agent>.<parameter>` and `z.<agent>`."""
        named = {f"{agent}.{n}": p for agent, ps in self.parameters().items() for n, p in ps.items()}
        named.update({f"z.{name}": z for name, z in self.z.items()})  # type: ignore[misc]
        return {name: p.grad for name, p in named.items() if p.grad is not None}

    def state(self) -> dict[str, torch.Tensor]:
        """Values of every parameter and z, named as in `gradients`."""
        named = {f"{agent}.{n}": p.detach() for agent, ps in self.parameters().items() for n, p in ps.items()}
        return {**named, **{f"z.{name}": z.detach() for name, z in self.z.items()}}


def _step(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()


def _save(tensors: dict[str, torch.Tensor], path: str) -> None:
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


def main() -> None:
    """Serve commands until standard input ends."""
    chain = SingleProcessChain(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    optimizers = chain.optimizers()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, Any] = {}
        if command["do"] == "gradients":
            chain.forget_gradients()
            answer["loss"] = chain.accumulate()
            _save(chain.gradients(), command["to"])
        elif command["do"] == "steps":
            answer["reports"] = []
            for _ in range(command["count"]):
                started_s = time.perf_counter()
                report = chain.step(optimizers)
                answer["reports"].append({**report, "step_s": time.perf_counter() - started_s})
        elif command["do"] == "loss_at":
            answer["loss"] = chain.loss_at(command["agent"], command["parameter"], command["index"], command["delta"])
        else:
            _save(chain.state(), command["to"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
