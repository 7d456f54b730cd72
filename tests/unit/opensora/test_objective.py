"""The video objective: a batch is the mean of its samples, and gradients reach z, the images and the weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mora_env_opensora.conditioning import ClipSize
from mora_env_opensora.models import CausalVAEModel, InputError, OpenSoraInpaint
from mora_env_opensora.objective import LossSettings, Target, VideoObjective, stack_texts

SIZE = ClipSize(9, 32, 32)


@pytest.fixture(scope="module")
def objective(tiny: Path) -> VideoObjective:
    model = OpenSoraInpaint.from_pretrained(tiny / "transformer_i2v")
    vae = CausalVAEModel.from_pretrained(tiny / "vae").requires_grad_(False)
    return VideoObjective(model, vae, SIZE)


def _batch() -> dict:
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randn(length, 32, generator=generator) for length in (3, 7)]
    images = torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1
    shape = SIZE.latent_shape
    targets = [
        Target(torch.randn(shape, generator=generator), torch.rand(shape, generator=generator)) for _ in range(2)
    ]
    return {"texts": texts, "images": images, "targets": targets, "seeds": [11, 12]}


def _one(batch: dict, index: int) -> dict:
    return {key: value[index : index + 1] for key, value in batch.items()}


def test_batch_of_two_is_the_mean_of_two_batches_of_one(objective: VideoObjective) -> None:
    z, batch = torch.randn(4, 32), _batch()
    together = objective.loss(z, **batch)
    apart = [objective.loss(z, **_one(batch, index)) for index in range(2)]
    torch.testing.assert_close(together, (apart[0] + apart[1]) / 2, rtol=1e-5, atol=1e-6)


def test_gradients_of_a_batch_are_the_mean_too(objective: VideoObjective) -> None:
    def gradients(batch: dict, scale: float) -> list[torch.Tensor]:
        z = torch.full((2, 32), 0.1, requires_grad=True)
        images = batch["images"].clone().requires_grad_()
        objective.model.zero_grad()
        (objective.loss(z, **(batch | {"images": images})) * scale).backward()
        weights = [parameter.grad.clone() for parameter in objective.model.parameters()]
        return [z.grad, images.grad, *weights]

    batch = _batch()
    together = gradients(batch, 1.0)
    apart = [gradients(_one(batch, index), 0.5) for index in range(2)]
    torch.testing.assert_close(together[0], apart[0][0] + apart[1][0], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(together[1], torch.cat([apart[0][1], apart[1][1]]), rtol=1e-4, atol=1e-7)
    for whole, first, second in zip(together[2:], apart[0][2:], apart[1][2:], strict=True):
        torch.testing.assert_close(whole, first + second, rtol=1e-3, atol=1e-6)
    assert together[0].abs().max() > 0
    assert together[1].abs().max() > 0


def test_seed_decides_all_randomness(objective: VideoObjective) -> None:
    batch = _batch()
    torch.manual_seed(1)
    first = objective.loss(None, **batch)
    torch.manual_seed(2)
    assert torch.equal(first, objective.loss(None, **batch))
    assert not torch.equal(first, objective.loss(None, **(batch | {"seeds": [11, 13]})))


def test_recomputing_activations_changes_no_gradient(tiny: Path, objective: VideoObjective) -> None:
    batch = _batch()
    model = OpenSoraInpaint.from_pretrained(tiny / "transformer_i2v")
    vae = CausalVAEModel.from_pretrained(tiny / "vae").requires_grad_(False)
    model.gradient_checkpointing = True
    vae.enable_gradient_checkpointing()
    kept, recomputed = (batch["images"].clone().requires_grad_() for _ in range(2))
    objective.loss(None, **(batch | {"images": kept})).backward()
    VideoObjective(model, vae, SIZE).loss(None, **(batch | {"images": recomputed})).backward()
    assert torch.equal(kept.grad, recomputed.grad)


def test_images_of_another_size_are_fitted(objective: VideoObjective) -> None:
    images = torch.rand(2, 3, 48, 64, requires_grad=True)
    objective.loss(None, **(_batch() | {"images": images})).backward()
    assert images.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seeds": [1]}, "batch"),
        ({"images": torch.zeros(1, 3, 32, 32)}, "batch"),
        ({"texts": [torch.zeros(3, 32), torch.zeros(3, 31)]}, "prompt rows"),
        ({"texts": [torch.zeros(3, 32), torch.zeros(0, 32)]}, "prompt rows"),
        ({"targets": [Target(torch.zeros(4, 2, 4, 4), torch.ones(4, 2, 4, 4))] * 2}, "targets"),
    ],
)
def test_parts_that_do_not_fit_are_named(objective: VideoObjective, changes: dict, named: str) -> None:
    with pytest.raises(InputError, match=named):
        objective.loss(None, **(_batch() | changes))


def test_padding_of_texts_changes_nothing(objective: VideoObjective) -> None:
    text, latents = torch.randn(3, 32), torch.randn(1, 12, 3, 4, 4)
    alone = stack_texts([text], None, objective.model)
    padded = stack_texts([text, torch.randn(9, 32)], None, objective.model)
    results = [
        objective.model(latents, torch.tensor(5), rows, encoder_attention_mask=mask)
        for rows, mask in ((alone.rows, alone.mask), (padded.rows[:1], padded.mask[:1]))
    ]
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


def test_z_follows_the_prompt_with_mask_1(objective: VideoObjective) -> None:
    z = torch.randn(2, 32)
    batch = stack_texts([torch.randn(3, 32), torch.randn(5, 32)], z, objective.model)
    assert batch.rows.shape == (2, 1, 7, 32)
    assert torch.equal(batch.rows[:, 0, 5:], z.expand(2, -1, -1))
    assert batch.mask[:, 0].tolist() == [[1, 1, 1, 0, 0, 1, 1], [1] * 7]


def test_velocity_trains_and_its_batch_is_the_mean_too(objective: VideoObjective) -> None:
    settings = LossSettings("v_prediction", snr_gamma=5.0, noise_offset=0.0)
    velocity = VideoObjective(objective.model, objective.vae, SIZE, settings)
    batch = _batch()
    loss = velocity.loss(None, **batch)
    assert not torch.equal(loss, objective.loss(None, **batch))
    apart = [velocity.loss(None, **_one(batch, index)) for index in range(2)]
    torch.testing.assert_close(loss, (apart[0] + apart[1]) / 2, rtol=1e-5, atol=1e-6)


def test_models_and_objective_need_only_torch_and_safetensors() -> None:
    import subprocess
    import sys

    script = (
        "import sys\n"
        "for name in ('diffusers', 'transformers', 'einops', 'pydantic', 'huggingface_hub', 'peft'):\n"
        "    sys.modules[name] = None\n"
        "import mora_env_opensora.models, mora_env_opensora.objective, mora_env_opensora.conditioning\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
