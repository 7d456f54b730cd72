"""The same chain in ONE process: the reference for parity and for the cost of the process border.

Runs in the sd3 environment (`python -m benchmarks.single_process`) with the video model imported from the checkout,
which works because that model needs torch and safetensors alone. It reads one JSON command per line from standard input
and answers each: `{"do": "gradients", "to": FILE}`, `{"do": "steps", "count": N}`, `{"do": "state", "to": FILE}`, and
`{"do": "loss_at", "agent": A, "parameter": P, "index": I, "delta": D}` for finite differences.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from mora_env_opensora.conditioning import ClipSize
from mora_env_opensora.models import CausalVAEModel, OpenSoraInpaint
from mora_env_opensora.objective import LossSettings, Target, VideoObjective
from mora_env_sd3.agent import Sd3Agent
from mora_env_sd3.options import Sd3Options
from safetensors.torch import load_file, save_file

AGENTS = ("image", "video")


class SingleProcessChain:
    """Prompt -> image -> video loss in one autograd graph, and the paper's algorithm 1 in plain torch.

    Args:
        spec: written by `benchmarks.chain_session.ChainSession.write_spec`.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        torch.set_num_threads(spec["num_threads"])
        device = torch.device("cpu")
        self._spec = spec
        self._image = Sd3Agent(Sd3Options(**spec["image_options"]), device)
        video = spec["video_options"]
        self._video_model = OpenSoraInpaint.from_pretrained(video["model"])
        vae = CausalVAEModel.from_pretrained(video["vae"]).requires_grad_(False)
        size = ClipSize(video["num_frames"], video["height"], video["width"])
        settings = LossSettings(video["prediction_type"], video["snr_gamma"], video["noise_offset"])
        self._objective = VideoObjective(self._video_model, vae, size, settings)
        tensors = load_file(spec["tensors"])
        self.z = {name: tensors[f"z.{name}"].requires_grad_(True) for name in AGENTS if f"z.{name}" in tensors}
        self._image_keys = self._image.encode(prompts=spec["prompts"])["keys"]
        self._rows = [load_file(path)["rows"] for path in spec["text_rows"]]
        self._targets = [self._target(tensors[f"clip.{index}"]) for index in range(len(spec["prompts"]))]

    @torch.no_grad()
    def _target(self, pixels: torch.Tensor) -> Target:
        # the video agent's memory layout, because convolutions choose their algorithm by strides too
        clip = (pixels.permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1.0).transpose(0, 1)[None]
        posterior = self._objective.vae.encode(clip)
        return Target(posterior.mean[0], posterior.std[0])

    def parameters(self) -> dict[str, dict[str, torch.nn.Parameter]]:
        """Trainable parameters by agent and name."""
        modules = {"image": self._image.module(), "video": self._video_model}
        return {name: dict(module.named_parameters()) for name, module in modules.items()}

    def accumulate(self) -> float:
        """Forward and backward of every micro-batch; gradients of the mean loss add up. Returns the mean loss."""
        batches = self._spec["batches"]
        total = 0.0
        for batch in batches:
            loss = self._loss(batch["samples"], batch["seeds"])
            (loss * torch.tensor(1.0 / len(batches))).backward()
            total += float(loss.detach())
        return total / len(batches)

    def _loss(self, samples: list[int], seeds: list[int]) -> torch.Tensor:
        prompts, negative = self._image.embeddings([self._image_keys[index] for index in samples])
        images = self._image.renderer.render(self.z.get("image"), prompts, negative, seeds, self._image.settings())
        return self._objective.loss(
            self.z.get("video"),
            [self._rows[index] for index in samples],
            images,
            [self._targets[index] for index in samples],
            seeds,
        )

    @torch.no_grad()
    def loss_at(self, agent: str, parameter: str, index: int, delta: float) -> float:
        """Mean loss with `delta` added to one element of one parameter; the parameter is restored."""
        flat = self.parameters()[agent][parameter].view(-1)
        kept = flat[index].clone()
        flat[index] += delta
        batches = self._spec["batches"]
        losses = [float(self._loss(batch["samples"], batch["seeds"]).double()) for batch in batches]
        flat[index] = kept
        return sum(losses) / len(losses)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """One AdamW for each agent and one for all z."""
        made: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.AdamW(parameters.values(), lr=0.0, weight_decay=1e-2)
            for name, parameters in self.parameters().items()
        }
        if self.z:
            made["z"] = torch.optim.AdamW(self.z.values(), lr=0.0, weight_decay=0.0)
        return made

    def step(self, optimizers: dict[str, torch.optim.Optimizer]) -> dict[str, Any]:
        """Algorithm 1 by hand: gradients, one global clip, every z_i first, alpha_i from them, then every theta_i."""
        self.forget_gradients()
        loss = self.accumulate()
        named = {**self.parameters(), **({"z": self.z} if self.z else {})}
        everything = [p for parameters in named.values() for p in parameters.values() if p.grad is not None]
        norm = torch.sqrt(sum((p.grad.double() ** 2).sum() for p in everything))  # type: ignore[union-attr, arg-type]
        clip = min(1.0, self._spec["clip_norm"] / (float(norm) + 1e-6))
        for parameter in everything:
            parameter.grad.mul_(clip)  # type: ignore[union-attr]
        alphas = dict.fromkeys(AGENTS, 1.0)
        if self.z:
            _step(optimizers["z"], self._spec["modulation_learning_rate"])
            alphas = {name: float(z.detach().double().norm()) / len(self.z) for name, z in self.z.items()}
        for name in AGENTS:
            _step(optimizers[name], alphas[name] * self._spec["learning_rates"][name])
        for optimizer in optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        return {"loss": loss, "alphas": alphas, "gradient_norm": float(norm)}

    def forget_gradients(self) -> None:
        """Start a new sum."""
        for parameters in (*self.parameters().values(), self.z):
            for parameter in parameters.values():
                parameter.grad = None

    def gradients(self) -> dict[str, torch.Tensor]:
        """Gradients accumulated so far, named `image.<parameter>`, `video.<parameter>`, `z.<agent>`."""
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
