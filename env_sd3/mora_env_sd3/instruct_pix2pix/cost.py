"""Memory and operations of InstructPix2Pix's agent, counted on the meta device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from mora_environment.cost import AgentCost, CostRequest, in_sequence
from mora_environment.cost_meter import measured_call, with_trained_counts
from mora_environment.model_folder import config_in
from mora_training.trainable import select_trainable
from torch import Tensor

from mora_env_sd3.image_generator import PictureRequest
from mora_env_sd3.instruct_pix2pix import published
from mora_env_sd3.instruct_pix2pix.editor import Edit, EditSettings, PictureEditor
from mora_env_sd3.instruct_pix2pix.objective import EditObjective
from mora_env_sd3.instruct_pix2pix.options import InstructPix2PixOptions
from mora_env_sd3.pictures.picture_agent import DTYPES
from mora_env_sd3.unet.loading import scheduler_of
from mora_env_sd3.unet.sized_parts import sized_autoencoder, sized_unet

_META = torch.device("meta")


def edit_cost(options: InstructPix2PixOptions, request: CostRequest) -> AgentCost:
    """Return what the agent costs with these options; every instruction has the same length."""
    edit = _Edit(options, request)
    has_backward = request.trains or request.passes_gradient or request.num_rows > 0
    encoding, prediction, decoding = (
        measured_call(part, with_backward=False) for part in (edit.encode, edit.predict, edit.decode)
    )
    step = measured_call(edit.step, modules=[edit.editor.unet], with_backward=has_backward)
    # the first steps of `forward` have no gradient and are all alike, so only the last of them runs here
    skipped = prediction.repeated(0 if request.has_loss else edit.num_skipped).forward * request.batch_size
    step = step.model_copy(update={"forward": step.forward + skipped})
    sample = in_sequence(encoding, prediction.repeated(options.num_inference_steps), decoding)
    return with_trained_counts(AgentCost(step=step, sample=sample), edit.editor.unet)


class _Edit:
    """The calls of the agent, with models and inputs that have shapes but no values."""

    def __init__(self, options: InstructPix2PixOptions, request: CostRequest) -> None:
        self._options = options
        self._request = request
        self.editor = sized_editor(options, _META)
        with _META:  # where adapters are made
            select_trainable(self.editor.unet, request.trainable)
        num_steps, gradient_steps = options.num_inference_steps, options.num_gradient_steps()
        num_measured = min(gradient_steps + 1, num_steps)
        self.num_skipped = num_steps - num_measured
        self._settings = EditSettings(
            height=options.height,
            width=options.width,
            num_inference_steps=num_measured,
            guidance_scale=options.guidance_scale,
            image_guidance_scale=options.image_guidance_scale,
            gradient_steps=gradient_steps,
        )

    def step(self) -> Tensor:
        """`loss`, or `forward` where the agent is inside the chain."""
        size, request = self._request.batch_size, self._request
        texts, seeds, z = [self._text()] * size, list(range(size)), self._z()
        pictures = self._pictures(size).requires_grad_(request.passes_gradient)
        outputs = []
        if request.has_loss or request.adds_loss:
            objective = EditObjective(self.editor, self._options.snr_gamma)
            outputs.append(objective.loss(z, texts, pictures, self._pictures(size), seeds))
        if not request.has_loss:
            outputs.append(self.editor.edited(z, texts, self._text(), pictures, seeds, self._settings).mean())
        return torch.stack(outputs).sum()

    def encode(self) -> Tensor:
        """Of one given picture."""
        return self.editor.given(self._pictures(1))

    def predict(self) -> Tensor:
        """One denoising step of one picture."""
        latents, settings = self._latents(), replace(self._settings, num_inference_steps=1)
        steps = self.editor.steps(settings, latents, [0], 1.0)
        requests = [PictureRequest(Edit(self._text(), self._text(), latents[0]), 0)]
        return self.editor.predict(requests, latents, steps, 0, settings, self._z())

    def decode(self) -> Tensor:
        return self.editor.decode(self._latents())

    def _latents(self) -> Tensor:
        return self.editor.initial_latents([0], self._settings)

    def _pictures(self, number: int) -> Tensor:
        return torch.empty(number, 3, self._options.height, self._options.width, device=_META)

    def _text(self) -> Tensor:
        unet = self.editor.unet
        return torch.empty(published.TEXT_LENGTH, unet.config.cross_attention_dim, device=_META, dtype=unet.dtype)

    def _z(self) -> Tensor | None:
        rows, width = self._request.num_rows, self.editor.unet.config.cross_attention_dim
        return torch.empty(rows, width, device=_META, requires_grad=self._request.trains) if rows else None


def sized_editor(options: InstructPix2PixOptions, device: torch.device) -> PictureEditor:
    """An editor with models of the sizes that the options name, set as the agent sets them."""
    dtype, folder = DTYPES[options.dtype], Path(options.model)
    unet = config_in(Path(options.unet or folder / "unet"), published.UNET)
    scheduler = config_in(folder / "scheduler", published.SCHEDULER, name="scheduler_config")
    return PictureEditor(
        sized_unet(unet, dtype, device, recomputes=options.gradient_checkpointing),
        sized_autoencoder(config_in(folder / "vae", published.VAE), dtype, device),
        scheduler_of(scheduler, options.model),
    )
