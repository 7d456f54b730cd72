"""InstructPix2Pix's agent: diffusers' own pipeline is the reference for what it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline, UNet2DConditionModel
from mora_env_sd3.instruct_pix2pix import published
from mora_env_sd3.instruct_pix2pix.agent import _NOISE_STREAM, InstructPix2PixAgent
from mora_env_sd3.instruct_pix2pix.editor import PictureEditor
from mora_env_sd3.instruct_pix2pix.options import InstructPix2PixOptions
from mora_env_sd3.unet.sampler_steps import _STEP_NOISE
from mora_env_sd3.unet.sized_parts import sized_unet
from mora_runtime.errors import BadArgument, Cancelled, SettingsError
from mora_runtime.schema import read_settings
from torch import Tensor

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
CPU = torch.device("cpu")
PROMPTS = ["make it red", "turn it into a square"]
SEEDS = [5, 6]


def built(edit_options: dict[str, Any], **changes: Any) -> InstructPix2PixAgent:
    return InstructPix2PixAgent(InstructPix2PixOptions(**{**edit_options, **changes}), CPU)


@pytest.fixture(scope="module")
def pipeline(edit_options: dict[str, Any]) -> StableDiffusionInstructPix2PixPipeline:
    made = StableDiffusionInstructPix2PixPipeline.from_pretrained(
        edit_options["model"], safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    made.set_progress_bar_config(disable=True)
    return made


def keys(edit_agent: InstructPix2PixAgent, *prompts: str) -> list[str]:
    found: list[str] = edit_agent.encode(prompts=list(prompts))["keys"]
    return found


def as_bytes(num: int, height: int = 32, width: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (num, height, width, 3), dtype=torch.uint8, generator=generator)


def pictures(num: int, height: int = 32, width: int = 32) -> Tensor:
    return as_bytes(num, height, width).permute(0, 3, 1, 2) / 127.5 - 1.0


def expected_of(
    pipeline: StableDiffusionInstructPix2PixPipeline,
    edit_agent: InstructPix2PixAgent,
    images: Tensor,
    seeds: list[int],
    **changes: Any,
) -> Tensor:
    """What the pipeline makes of the agent's initial noise and step noise, in [0, 1]."""
    settings = edit_agent.settings(height=images.shape[-2], width=images.shape[-1])
    made: Tensor = pipeline(
        image=images,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=changes.pop("guidance_scale", settings.guidance_scale),
        image_guidance_scale=settings.image_guidance_scale,
        latents=edit_agent.editor.initial_latents(seeds, settings),
        generator=[torch.Generator().manual_seed(seed ^ _STEP_NOISE) for seed in seeds],
        output_type="pt",
        **changes,
    ).images
    return made


def test_without_z_forward_makes_the_bits_of_the_published_pipeline(
    edit_agent: InstructPix2PixAgent, pipeline: StableDiffusionInstructPix2PixPipeline
) -> None:
    images = pictures(2)
    expected = expected_of(pipeline, edit_agent, images, [seed ^ _NOISE_STREAM for seed in SEEDS], prompt=PROMPTS)
    with torch.no_grad():
        found = edit_agent.forward(z=None, prompt_keys=keys(edit_agent, *PROMPTS), seeds=SEEDS, images=images)["images"]
    assert found.dtype == torch.float32
    assert torch.equal((found * 0.5 + 0.5).clamp(0, 1), expected)


@pytest.mark.parametrize("changes", [{}, {"guidance_scale": 1.0}, {"negative_prompt": "grey"}])
def test_edits_are_the_bytes_of_the_published_pipeline(
    edit_agent: InstructPix2PixAgent, pipeline: StableDiffusionInstructPix2PixPipeline, changes: dict[str, Any]
) -> None:
    images = pictures(1, 40, 48)
    expected = expected_of(pipeline, edit_agent, images, [5], prompt=PROMPTS[0], **changes)
    found = edit_agent.edit_image(PROMPTS[:1], [5], as_bytes(1, 40, 48), **changes)["outputs"]
    # With guidance, convolutions run sample by sample here and as a batch of three in the pipeline, so the last bits
    # before rounding differ; a value at the border between two bytes can fall on either side.
    assert (found[0].float() - 255.0 * expected[0].permute(1, 2, 0)).abs().max() <= 0.5 + 1e-3


def test_an_edit_has_the_same_bytes_in_any_batch(edit_agent: InstructPix2PixAgent) -> None:
    given = as_bytes(2)
    together = edit_agent.edit_image(PROMPTS, SEEDS, given)["outputs"]
    alone = [edit_agent.edit_image([PROMPTS[i]], [SEEDS[i]], given[i : i + 1])["outputs"][0] for i in (0, 1)]
    assert torch.equal(together, torch.stack(alone))
    assert not torch.equal(alone[0], edit_agent.edit_image(PROMPTS[:1], [9], given[:1])["outputs"][0])
    assert not torch.equal(alone[0], edit_agent.edit_image(PROMPTS[1:], [5], given[:1])["outputs"][0])
    assert not torch.equal(alone[0], edit_agent.edit_image(PROMPTS[:1], [5], given[1:])["outputs"][0])


def test_a_batch_without_guidance_is_compared_with_its_first_sample_too(edit_agent: InstructPix2PixAgent) -> None:
    given, generator = as_bytes(2), edit_agent._generator
    generator._checked.clear()
    edit_agent.edit_image(PROMPTS, SEEDS, given, num_inference_steps=1)
    assert len(generator._checked) == 1
    edit_agent.edit_image(PROMPTS, SEEDS, given, num_inference_steps=1, guidance_scale=1.0)
    assert len(generator._checked) == 2


def test_generate_makes_the_picture_of_forward(edit_agent: InstructPix2PixAgent) -> None:
    arguments = {"z": None, "prompt_keys": keys(edit_agent, *PROMPTS), "seeds": SEEDS, "images": pictures(2, 48, 40)}
    with torch.no_grad():
        trained = ((edit_agent.forward(**arguments)["images"] + 1.0) * 127.5).clamp(0, 255).permute(0, 2, 3, 1)
    assert (edit_agent.generate(**arguments)["outputs"].float() - trained).abs().max() <= 0.5 + 1e-3


def test_z_follows_every_text_and_starts_from_the_content_rows(
    edit_agent: InstructPix2PixAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = edit_agent.modulation_rows("[Mod]", new_token=False)["rows"]
    assert rows.dtype == torch.float32
    assert torch.equal(rows, edit_agent._encoders.embed("[Mod]").rows[1 : 1 + len(rows)])
    assert len(rows) == 5, "the bytes of [Mod] without start and end"
    new = edit_agent.modulation_rows("[Mod]", new_token=True)["rows"]
    assert new.shape == (1, 32)
    seen: list[Tensor] = []
    noise = edit_agent.editor.noise

    def recorded(inputs: Tensor, given: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        seen.append(text)
        return noise(inputs, given, timestep, text)

    monkeypatch.setattr(edit_agent.editor, "noise", recorded)
    edit_agent.edit_image(PROMPTS[:1], [5], as_bytes(1), z=rows)
    assert seen[0].shape == (3, 77 + len(rows), 32)
    assert all(torch.equal(part[77:], rows) for part in seen[0])


def test_a_cancelled_edit_is_left_out_and_the_others_keep_their_bytes(
    edit_agent: InstructPix2PixAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, prompts, seeds = as_bytes(3), [*PROMPTS, "a cat"], [1, 2, 3]
    whole = edit_agent.edit_image(prompts, seeds, given)["outputs"]
    steps: list[int] = []
    picture_agent = "mora_env_sd3.pictures.picture_agent"
    monkeypatch.setattr(f"{picture_agent}.report_step", lambda step, num_steps: steps.append(step))
    monkeypatch.setattr(f"{picture_agent}.cancelled_samples", lambda: frozenset({1} if steps[-1] >= 1 else ()))
    left = edit_agent.edit_image(prompts, seeds, given)["outputs"]
    assert steps == [0, 1, 2, 3, 3, 3], "the last step again before each picture that is decoded"
    assert torch.equal(left[[0, 2]], whole[[0, 2]])
    assert not left[1].any()


def test_pictures_of_cancelled_edits_are_not_encoded(
    edit_agent: InstructPix2PixAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = as_bytes(3)
    whole = edit_agent.edit_image([*PROMPTS, "a cat"], [1, 2, 3], given)["outputs"]
    encoded: list[Tensor] = []
    mode = edit_agent.editor.autoencoder.mode

    def recorded(pixels: Tensor) -> Tensor:
        encoded.append(pixels)
        return mode(pixels)

    monkeypatch.setattr(edit_agent.editor.autoencoder, "mode", recorded)
    for module in ("pictures.picture_agent", "instruct_pix2pix.agent"):
        monkeypatch.setattr(f"mora_env_sd3.{module}.cancelled_samples", lambda: frozenset({0}))
    left = edit_agent.edit_image([*PROMPTS, "a cat"], [1, 2, 3], given)["outputs"]
    assert len(encoded) == 2
    assert not left[0].any()
    assert torch.equal(left[1:], whole[1:])

    def cancelled() -> None:
        raise Cancelled("the caller cancelled this call")

    monkeypatch.setattr("mora_env_sd3.instruct_pix2pix.agent.check_cancelled", cancelled)
    with pytest.raises(Cancelled):
        edit_agent.edit_image(PROMPTS, SEEDS, given[:2])
    assert len(encoded) == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": torch.zeros(1, 32, 32, 3)}, r"images: expected uint8 \(B, H, W, 3\)"),
        ({"images": torch.zeros(1, 36, 32, 3, dtype=torch.uint8)}, "size: expected multiples of 8, got 32x36"),
        ({"seeds": [1, 2]}, "as many seeds"),
    ],
)
def test_bad_requests_are_refused(edit_agent: InstructPix2PixAgent, changes: dict[str, Any], said: str) -> None:
    good = {"prompts": ["a cat"], "seeds": [1], "images": as_bytes(1)}
    with pytest.raises(BadArgument, match=said):
        edit_agent.edit_image(**{**good, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_guidance_scale": 0.5}, "greater than or equal to 1"),
        ({"gradient_steps": 4}, "gradient_steps 4 must be between 1 and num_inference_steps 3"),
        ({"image_guidance": 2.0}, "did you mean `image_guidance_scale`"),
        ({"height": 36}, "multiple of 8"),
    ],
)
def test_options_that_do_not_fit_are_named(edit_options: dict[str, Any], changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        read_settings(InstructPix2PixOptions, {**edit_options, **changes}, source="agents.edit.options")


def test_the_published_unet_has_the_keys_and_shapes_of_stable_diffusion_with_eight_channels() -> None:
    options = InstructPix2PixOptions(model=published.INSTRUCT_PIX2PIX, height=512, width=512)
    counts = {each.name: each.num_parameters for each in options.components()}
    assert counts == published.NUM_PARAMETERS[published.INSTRUCT_PIX2PIX]
    with torch.device("meta"):
        # the layout of Stable Diffusion 1.5 is the default of diffusers, but for the width of the text
        expected = UNet2DConditionModel(sample_size=64, in_channels=8, cross_attention_dim=768).state_dict()
    found = sized_unet(published.UNET, torch.float32, torch.device("meta"), recomputes=False).state_dict()
    assert {name: tensor.shape for name, tensor in found.items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }
    assert sum(tensor.numel() for tensor in found.values()) == counts["unet"]


def test_checkpoints_load_through_the_option_unet(edit_agent: InstructPix2PixAgent, tmp_path: Path) -> None:
    config = edit_agent.model_config()
    assert config["_class_name"] == "UNet2DConditionModel"
    unet = UNet2DConditionModel.from_config(config)
    unet.save_pretrained(tmp_path)
    options = edit_agent._options.model_copy(update={"unet": str(tmp_path)})
    loaded = InstructPix2PixAgent(options, CPU)
    assert torch.equal(loaded.module().conv_in.weight, unet.conv_in.weight)
    assert options.weights_folder() == str(tmp_path)


def test_the_editor_needs_no_values_on_the_host(edit_options: dict[str, Any]) -> None:
    """The meta device has none, so an operation that reads one back raises."""
    edit_agent = InstructPix2PixAgent(InstructPix2PixOptions(**edit_options), torch.device("meta"))
    assert isinstance(edit_agent.editor, PictureEditor)
    prompt_keys = edit_agent.encode(PROMPTS)["keys"]
    target = edit_agent.store_target(as_bytes(1))["key"]
    z = torch.empty(2, 32, device="meta", requires_grad=True)
    images = torch.empty(2, 3, 32, 32, device="meta", requires_grad=True)
    values = edit_agent.forward(z, prompt_keys, SEEDS, images, [target] * 2)
    gradients = torch.autograd.grad(values["images"].sum() + values["loss"], [z, images])
    assert {gradient.device.type for gradient in gradients} == {"meta"}
