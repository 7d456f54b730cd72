"""What training needs of SDXL: the loss by its formula, gradients against differences, z, targets, cancelling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mora_env_sd3.sdxl.agent import SdxlAgent
from mora_env_sd3.sdxl.options import SdxlOptions
from mora_env_sd3.unet.noise_objective import NoiseObjective
from mora_environment.job_folder import shared_folders
from mora_runtime.errors import BadArgument, Cancelled
from torch import Tensor

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
CPU = torch.device("cpu")
PROMPTS = ["a red circle moves left", "a blue square"]
SEEDS = [3, 4]


def clip(seed: int) -> Tensor:
    return torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def rows(agent: SdxlAgent) -> Tensor:
    found: Tensor = agent.modulation_rows("[Mod]", False)["rows"]
    return found.requires_grad_()


def alphas() -> Tensor:
    """Of the published schedule, float64: betas are the squares of numbers at equal distances."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1.0 - betas).cumprod(dim=0)


def test_the_loss_is_the_formula_at_the_drawn_timesteps(xl_agent: SdxlAgent) -> None:
    keys = xl_agent.encode(PROMPTS)["keys"]
    targets = [xl_agent.store_target(clip(seed))["key"] for seed in SEEDS]
    z = rows(xl_agent)
    loss = xl_agent.forward(z, keys, SEEDS, targets)["loss"]
    renderer, settings = xl_agent.renderer, xl_agent.settings()
    objective = renderer._objective
    errors = []
    for index, seed in enumerate(SEEDS):
        frame = clip(seed)[:1].permute(0, 3, 1, 2).float() / 127.5 - 1.0
        clean = renderer.encode(frame, [seed]).double()
        timestep, noise = objective.draw(seed, clean.shape)
        alpha = alphas()[timestep]
        noisy = (alpha.sqrt() * clean + (1.0 - alpha).sqrt() * noise.double()).float()
        embedding = xl_agent.embeddings(keys[index : index + 1])[0][0]
        with torch.no_grad():
            predicted = renderer.base.unet(
                noisy,
                timestep,
                encoder_hidden_states=torch.cat([embedding.rows, z])[None],
                added_cond_kwargs={
                    "text_embeds": embedding.pooled[None],
                    "time_ids": torch.tensor([[settings.height, settings.width, 0.0, 0.0, 32.0, 32.0]]),
                },
            ).sample.double()
        ratio = alpha / (1.0 - alpha)
        errors.append(min(float(ratio), 5.0) / ratio * ((predicted - noise.double()) ** 2).mean())
    assert float(loss.detach()) == pytest.approx(float(sum(errors)) / len(errors), abs=1e-6)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_the_weight_falls_where_there_is_little_noise(gamma: float) -> None:
    objective = NoiseObjective(alphas(), gamma)
    timesteps = torch.tensor([0, 300, 999])
    ratio = alphas()[timesteps] / (1.0 - alphas()[timesteps])
    expected = torch.minimum(ratio, torch.tensor(gamma)) / ratio
    found = objective.weights(timesteps)
    assert torch.allclose(found, expected, rtol=1e-12, atol=0)
    assert found[0] < found[1] <= found[2] == 1.0


def test_the_loss_of_a_batch_is_the_mean_of_its_samples_and_depends_on_their_seeds(xl_agent: SdxlAgent) -> None:
    keys = xl_agent.encode(PROMPTS)["keys"]
    targets = [xl_agent.store_target(clip(seed))["key"] for seed in SEEDS]
    with torch.no_grad():
        whole = xl_agent.forward(None, keys, SEEDS, targets)["loss"]
        parts = [xl_agent.forward(None, [keys[i]], [SEEDS[i]], [targets[i]])["loss"] for i in range(2)]
        other = xl_agent.forward(None, keys, [8, 9], targets)["loss"]
    assert float(whole) == pytest.approx(float(sum(parts)) / 2, abs=1e-6)
    assert abs(float(other - whole)) > 1e-4


def slopes(call: Any, z: Tensor) -> tuple[float, float]:
    """The derivative of `call` along its gradient in z: by the gradient, and by a central difference."""
    (gradient,) = torch.autograd.grad(call(z), z)
    step = 0.05
    with torch.no_grad():
        move = step * gradient / gradient.norm()
        difference = (call(z + move) - call(z - move)) / (2 * step)
    return float(gradient.norm()), float(difference)


def test_gradients_of_z_are_differences_in_the_loss_and_through_all_steps_of_base_and_refiner(
    xl_options: dict[str, Any], refiner: Path
) -> None:
    changes = {"refiner": str(refiner), "high_noise_share": 0.5, "gradient_steps": "all"}
    agent = SdxlAgent(SdxlOptions(**{**xl_options, **changes}), CPU)
    keys, z = agent.encode(PROMPTS[:1])["keys"], rows(agent)
    target = [agent.store_target(clip(3))["key"]]
    prompts, _ = agent.embeddings(keys)
    frames = agent._frames.pictures(target, CPU)
    for call in (
        lambda z: agent.renderer.own_loss(z, prompts, frames, [3], agent.settings()),
        lambda z: agent.forward(z, keys, [3])["images"].square().mean(),
    ):
        by_gradient, by_difference = slopes(call, z)
        assert by_gradient == pytest.approx(by_difference, rel=0.02)


def test_with_a_refiner_the_gradient_goes_through_the_last_steps_of_the_base_model(refined_agent: SdxlAgent) -> None:
    keys, z = refined_agent.encode(PROMPTS[:1])["keys"], rows(refined_agent)
    unet = refined_agent.module()
    unet.zero_grad()
    refined_agent.forward(z, keys, [3])["images"].square().mean().backward()
    assert all(parameter.grad is not None for parameter in unet.parameters())
    assert (z.grad.abs().sum(dim=1) > 0).all(), "every row of z reaches the picture"  # type: ignore[union-attr]
    refining = refined_agent.renderer._refiner
    assert refining is not None
    assert not any(parameter.requires_grad for parameter in refining.unet.parameters())
    unet.zero_grad()


def test_z_changes_both_halves_of_guidance_and_no_pooled_vector(xl_agent: SdxlAgent) -> None:
    seen: list[dict[str, Any]] = []
    handle = xl_agent.module().register_forward_pre_hook(
        lambda module, inputs, options: seen.append(options), with_kwargs=True
    )
    z = rows(xl_agent)
    text = xl_agent._guided(PROMPTS[0], None)
    with torch.no_grad():
        for each in (None, z):
            xl_agent.renderer.render(each, [text], [3], xl_agent.settings(num_inference_steps=1))
    handle.remove()
    plain, modulated = seen
    both = modulated["encoder_hidden_states"]
    assert torch.equal(both[:, :77], plain["encoder_hidden_states"])
    assert torch.equal(both[:, 77:], z.expand(2, -1, -1))
    assert torch.equal(plain["added_cond_kwargs"]["text_embeds"], modulated["added_cond_kwargs"]["text_embeds"])


def test_z_starts_with_both_encoders_rows_of_the_text(xl_agent: SdxlAgent) -> None:
    found = xl_agent.modulation_rows("[Mod]", False)["rows"]
    embedding = xl_agent._encoders.embed("[Mod]")
    assert torch.equal(found, embedding.rows[1 : 1 + len(found)])
    new = xl_agent.modulation_rows("[Mod]", True)["rows"]
    assert new.shape == (1, found.shape[1])
    assert not torch.equal(new[0], found[0])


def test_frames_and_texts_are_found_by_another_process_of_the_job(xl_options: dict[str, Any], tmp_path: Path) -> None:
    with shared_folders(tmp_path):
        first, second = (SdxlAgent(SdxlOptions(**xl_options), CPU) for _ in range(2))
    key = first.store_target(clip(7))["key"]
    assert second.has_targets([key, "0" * 64])["found"] == [True, False]
    assert torch.equal(first._frames.pictures([key], CPU), second._frames.pictures([key], CPU))
    keys = first.encode(PROMPTS)["keys"]
    assert second.encode(PROMPTS)["keys"] == keys
    assert second._encoders._pipeline is None
    one, two = (agent.embeddings(keys) for agent in (first, second))
    assert torch.equal(one[0][1].rows, two[0][1].rows)
    assert torch.equal(one[1].refiner.pooled, two[1].refiner.pooled)


def test_a_cancelled_request_ends_before_the_next_model_call(
    xl_agent: SdxlAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    handle = xl_agent.module().register_forward_pre_hook(lambda module, inputs: calls.append(1))

    def report(step: int, num_steps: int) -> None:
        assert num_steps == 3
        if step == 2:
            raise Cancelled("the caller cancelled this call")

    monkeypatch.setattr("mora_env_sd3.pictures.picture_agent.report_step", report)
    with pytest.raises(Cancelled):
        xl_agent.text_to_image(PROMPTS[:1], [3])
    handle.remove()
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda agent: agent.forward(None, [], []), "as many seeds as prompts"),
        (lambda agent: agent.forward(None, ["nothing"], [1]), "unknown prompt key `nothing`"),
        (lambda agent: agent.store_target(torch.zeros(1, 8, 8, 3, dtype=torch.uint8)), "expected uint8 .F >= 1, 32"),
        (lambda agent: agent.text_to_image(PROMPTS, SEEDS, height=36), "expected multiples of 8, got 32x36"),
        (lambda agent: agent.image_to_image(PROMPTS[:1], [1], torch.zeros(1, 32, 32, 3), 0.5), "expected uint8"),
    ],
)
def test_wrong_calls_are_refused_with_what_was_expected(xl_agent: SdxlAgent, call: Any, said: str) -> None:
    with pytest.raises(BadArgument, match=said):
        call(xl_agent)


def test_everything_stays_on_the_device(xl_options: dict[str, Any], refiner: Path) -> None:
    """The meta device stands for a GPU: an operation on tensors of two devices raises."""
    meta = torch.device("meta")
    agent = SdxlAgent(SdxlOptions(**{**xl_options, "refiner": str(refiner)}), meta)
    keys = agent.encode(PROMPTS)["keys"]
    targets = [agent.store_target(clip(1))["key"]] * 2
    prompts, _ = agent.embeddings(keys)
    assert {prompt.rows.device for prompt in prompts} == {meta}
    z = torch.empty(3, prompts[0].rows.shape[1], device=meta, requires_grad=True)
    made = agent.forward(z, keys, [1, 2], targets)
    (gradient,) = torch.autograd.grad(made["images"].sum() + made["loss"], z)
    assert {made["images"].device, made["loss"].device, gradient.device} == {meta}
