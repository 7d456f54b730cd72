"""The Stable Diffusion 3 agent: diffusers' own pipeline is the reference for what it generates."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusion3Img2ImgPipeline, StableDiffusion3Pipeline
from mora_env_sd3.__main__ import KINDS
from mora_env_sd3.agent import Sd3Agent
from mora_env_sd3.options import Sd3Options
from mora_env_sd3.text_encoders import TextEncoders
from mora_environment.interface import Port
from mora_environment.options_command import answer_request
from mora_runtime import RunDirectory, Session
from mora_runtime.errors import BadArgument, Cancelled, SettingsError
from mora_runtime.schema import read_settings

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
CPU = torch.device("cpu")


def keys(agent: Sd3Agent, *prompts: str) -> list[str]:
    found: list[str] = agent.encode(prompts=list(prompts))["keys"]
    return found


def changed(options: Sd3Options, **changes: Any) -> Sd3Agent:
    return Sd3Agent(options.model_copy(update=changes), CPU)


def test_without_z_it_renders_what_the_published_pipeline_renders(agent: Sd3Agent, model: Path) -> None:
    prompt = "a red circle moves left over the sea"
    pipeline = StableDiffusion3Pipeline.from_pretrained(str(model))
    pipeline.set_progress_bar_config(disable=True)
    latents = agent.renderer.initial_latents([5], agent.settings())
    expected = pipeline(
        prompt,
        negative_prompt="",
        height=32,
        width=32,
        num_inference_steps=3,
        guidance_scale=3.0,
        latents=latents,
        max_sequence_length=16,
        output_type="pt",
    ).images
    with torch.no_grad():
        found = agent.forward(z=None, prompt_keys=keys(agent, prompt), seeds=[5])["images"]
    assert torch.allclose((found / 2 + 0.5).clamp(0, 1), expected, atol=1e-5)


def test_the_same_seed_renders_the_same_picture_in_any_batch(agent: Sd3Agent) -> None:
    both = keys(agent, "a blue square", "a green ball")
    with torch.no_grad():
        batch = agent.forward(z=None, prompt_keys=both, seeds=[1, 2])["images"]
        alone = agent.forward(z=None, prompt_keys=both[1:], seeds=[2])["images"]
    assert batch.shape == (2, 3, 32, 32)
    assert torch.allclose(batch[1], alone[0], atol=1e-5)


def test_finished_pictures_are_in_shared_memory(agent: Sd3Agent, tmp_path: Path) -> None:
    prompts = ["a blue square", "a green ball"]
    alone = agent.text_to_image(prompts, [1, 2])["outputs"]
    with Session.open(RunDirectory.create(tmp_path / "run"), "image.0") as session:
        made = agent.text_to_image(prompts, [1, 2])["outputs"]
        slot, _ = session.store.arena.slot_of(made)
        assert slot.segment.address + slot.offset == made.data_ptr()  # handed over without a copy
        assert torch.equal(made, alone)
        del made, slot


def test_z_changes_the_picture_and_gets_a_gradient(agent: Sd3Agent) -> None:
    z = agent.modulation_rows(text="[Mod]", new_token=False)["rows"].requires_grad_(True)
    prompt = keys(agent, "a cat in the city")
    images = agent.forward(z=z, prompt_keys=prompt, seeds=[3])["images"]
    images.square().mean().backward()
    assert z.grad is not None
    assert (z.grad.abs().sum(dim=1) > 0).all(), "every row of z reaches the picture"
    with torch.no_grad():
        without = agent.forward(z=None, prompt_keys=prompt, seeds=[3])["images"]
    assert not torch.allclose(images, without)


def test_only_the_last_k_steps_carry_gradient(options: Sd3Options) -> None:
    gradients: list[torch.Tensor] = []
    images: list[torch.Tensor] = []
    for steps in (1, 2, "all"):
        agent = changed(options, gradient_steps=steps)
        rendered = agent.forward(z=None, prompt_keys=keys(agent, "a ship"), seeds=[4])["images"]
        rendered.square().mean().backward()
        images.append(rendered.detach())
        gradients.append(agent.module().get_parameter("proj_out.weight").grad)  # type: ignore[arg-type]
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[1], images[2])
    assert not torch.allclose(gradients[0], gradients[1])
    assert not torch.allclose(gradients[1], gradients[2])


def test_gradient_checkpointing_changes_no_gradient(options: Sd3Options) -> None:
    found = []
    for checkpointing in (False, True):
        agent = changed(options, gradient_checkpointing=checkpointing)
        rendered = agent.forward(z=None, prompt_keys=keys(agent, "a ship"), seeds=[4])["images"]
        rendered.square().mean().backward()
        found.append(agent.module().get_parameter("transformer_blocks.0.attn.to_q.weight").grad)
    assert torch.equal(found[0], found[1])  # type: ignore[arg-type]


def test_text_encoders_and_autoencoder_never_train(agent: Sd3Agent) -> None:
    rendered = agent.forward(z=None, prompt_keys=keys(agent, "a dog"), seeds=[1])["images"]
    rendered.sum().backward()
    assert all(parameter.grad is None for parameter in agent.renderer.vae.parameters())
    for parameter in agent.module().parameters():
        parameter.grad = None


def test_modulation_rows_are_the_content_tokens_of_t5(options: Sd3Options) -> None:
    agent = Sd3Agent(options, CPU)
    rows = agent.modulation_rows(text="[Mod]", new_token=False)["rows"]
    pipeline = agent._encoders._loaded()
    ids = pipeline.tokenizer_3("[Mod]", return_tensors="pt").input_ids
    assert int(ids[0, -1]) == pipeline.tokenizer_3.eos_token_id
    with torch.no_grad():
        expected = pipeline.text_encoder_3(ids)[0][0, :-1]
    assert rows.shape == (ids.shape[1] - 1, 64)
    assert torch.equal(rows, expected)
    assert agent.modulation_rows(text="[Mod]", new_token=True)["rows"].shape == (1, 64)
    each = changed(options, encoders="each").modulation_rows(text="[Mod]", new_token=False)["rows"]
    assert each.shape[0] > rows.shape[0]
    assert torch.equal(each[-rows.shape[0] :], rows)


def test_z_before_and_after_are_equivalent_in_joint_attention_without_positions(options: Sd3Options) -> None:
    rendered = []
    for position in ("after", "before"):
        agent = changed(options, position=position)
        z = agent.modulation_rows(text="[Mod]", new_token=False)["rows"]
        with torch.no_grad():
            images = agent.forward(z=z, prompt_keys=keys(agent, "a cat"), seeds=[1])["images"]
        rendered.append(images)
    assert torch.allclose(rendered[0], rendered[1], atol=1e-4)


def test_the_feature_map_starts_near_the_identity_and_trains(options: Sd3Options) -> None:
    agent = changed(options, position="feature")
    z = agent.modulation_rows(text="[Mod]", new_token=False)["rows"].requires_grad_(True)
    images = agent.forward(z=z, prompt_keys=keys(agent, "a cat"), seeds=[1])["images"]
    images.square().mean().backward()
    weight = agent.module().get_parameter("mora_feature_map.weight")
    assert z.grad is not None
    assert z.grad.any()
    assert weight.grad is not None
    assert weight.grad.any()


def test_the_image_agents_own_loss_is_differentiable_and_depends_on_the_frame(agent: Sd3Agent) -> None:
    prompt, losses = keys(agent, "a cat"), []
    for value in (0, 200):
        key = agent.store_target(pixels=torch.full((2, 32, 32, 3), value, dtype=torch.uint8))["key"]
        loss = agent.forward(z=None, prompt_keys=prompt, seeds=[1], target_keys=[key])["loss"]
        assert loss.requires_grad
        losses.append(float(loss.detach()))
    assert losses[0] != losses[1]


def test_of_a_target_the_first_frame_is_stored_once_as_a_copy(options: Sd3Options) -> None:
    agent = Sd3Agent(options, CPU)
    pixels = torch.zeros((3, 32, 32, 3), dtype=torch.uint8)
    pixels[0] = 255
    key = agent.store_target(pixels=pixels)["key"]
    assert agent.store_target(pixels=pixels[:1].clone())["key"] == key
    pixels.zero_()  # the caller's memory is used again
    (kept,) = agent._frames._frames.values()
    assert kept.dtype == torch.uint8
    assert torch.equal(agent._frames.pictures([key], CPU), torch.ones(1, 3, 32, 32))


def test_a_served_prompt_is_embedded_once(options: Sd3Options, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded: list[str] = []
    embed = TextEncoders.embed
    monkeypatch.setattr(TextEncoders, "embed", lambda self, prompt: (embedded.append(prompt), embed(self, prompt))[1])
    agent = Sd3Agent(options, CPU)
    for prompt in ("a cat", "a dog", "a cat"):
        agent.text_to_image([prompt], [1], num_inference_steps=1)
    assert [prompt for prompt in embedded if prompt] == ["a cat", "a dog"]


def test_a_call_overrides_the_options_of_a_picture(agent: Sd3Agent) -> None:
    usual, changed = agent.settings(), agent.settings(64, 48, 7, 1.5)
    assert (changed.height, changed.width, changed.num_inference_steps, changed.guidance_scale) == (64, 48, 7, 1.5)
    assert agent.settings(None, None, None, None) == usual
    assert agent.settings(num_inference_steps=1).gradient_steps == 1


def test_a_negative_prompt_steers_a_picture_only_with_guidance(agent: Sd3Agent) -> None:
    def made(negative_prompt: str | None, guidance_scale: float) -> torch.Tensor:
        asked = {"negative_prompt": negative_prompt, "guidance_scale": guidance_scale}
        outputs: torch.Tensor = agent.text_to_image(["a cat"], [1], **asked)["outputs"]
        return outputs

    assert agent.describe()["takes_negative_prompt"]
    assert torch.equal(made("", 4.0), made(None, 4.0)), "the options have an empty one"
    assert not torch.equal(made("a dog", 4.0), made(None, 4.0))
    assert torch.equal(made("a dog", 1.0), made(None, 1.0))
    picture = made(None, 4.0)
    changed = [
        agent.image_to_image(["a cat"], [1], picture, 0.8, guidance_scale=4.0, negative_prompt=text)["outputs"]
        for text in (None, "a dog")
    ]
    assert not torch.equal(*changed)


def test_encoding_after_unloading_loads_again(options: Sd3Options) -> None:
    agent = Sd3Agent(options, CPU)
    first = keys(agent, "a cat")[0]
    before = agent._encoders.get(first).joint
    agent.unload_text_encoder()
    assert agent._encoders._pipeline is None
    second = keys(agent, "a cat", "a dog")
    assert second[0] == first
    assert torch.equal(agent._encoders.get(first).joint, before)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prompt_keys": ["absent"], "seeds": [1]}, "unknown prompt key `absent`"),
        ({"prompt_keys": [], "seeds": []}, "expected as many seeds as prompts"),
        ({"prompt_keys": ["a"], "seeds": [1, 2]}, "got 2 and 1"),
    ],
)
def test_bad_arguments_are_refused(agent: Sd3Agent, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(BadArgument, match=words):
        agent.forward(z=None, **arguments)


def test_a_prompt_that_is_too_long_and_a_frame_of_another_size_are_refused(agent: Sd3Agent) -> None:
    with pytest.raises(BadArgument, match="at most 10000 characters, got 20000"):
        agent.encode(prompts=["x" * 20_000])
    for shape in ((2, 16, 16, 3), (32, 32, 3), (0, 32, 32, 3), (3,)):
        with pytest.raises(BadArgument, match=r"pixels: expected uint8 \(F >= 1, 32, 32, 3\), got torch.uint8"):
            agent.store_target(pixels=torch.zeros(shape, dtype=torch.uint8))
    with pytest.raises(BadArgument, match=r"got torch.float32"):
        agent.store_target(pixels=torch.zeros(2, 32, 32, 3))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"heigth": 32}, "did you mean `height`"),
        ({"height": 30}, "multiple of 16"),
        ({"gradient_steps": 9}, "must be between 1 and num_inference_steps 3"),
        ({"dtype": "float16"}, "'float32' or 'bfloat16'"),
    ],
)
def test_options_that_do_not_fit_are_named(model: Path, changes: dict[str, Any], words: str) -> None:
    content = {"model": str(model), "height": 32, "width": 32, "num_inference_steps": 3, **changes}
    with pytest.raises(SettingsError, match=words):
        read_settings(Sd3Options, content, source="agents.image.options")


def test_the_interface_tells_the_methods_and_the_size(options: Sd3Options, agent: Sd3Agent) -> None:
    found = options.interface()
    assert found.gives == {"images": Port(modality="images", height=32, width=32)}
    assert not found.takes
    assert all((found.has_loss, found.needs_targets, found.has_text, found.has_modulation, found.has_noise))
    assert found.generates is None


def test_the_options_tell_the_folder_of_trained_weights(model: Path, options: Sd3Options, tmp_path: Path) -> None:
    def folder(**changes: Any) -> Any:
        changed = options.model_copy(update=changes).model_dump()
        request = {"kind": "sd3", "options": changed, "source": "agents.image.options"}
        return answer_request(KINDS, "mora_env_sd3", request)["weights_folder"]

    (tmp_path / "weights.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    assert folder() == str(model / "transformer")
    assert folder(transformer=str(tmp_path)) == str(tmp_path)
    assert folder(model="stabilityai/stable-diffusion-3-medium-diffusers") is None


def test_components_are_counted_from_the_weights_on_disk(options: Sd3Options, agent: Sd3Agent) -> None:
    components = {component.name: component for component in options.components()}
    assert components["transformer"].num_parameters == sum(t.numel() for t in agent.module().state_dict().values())
    assert [name for name, component in components.items() if component.trainable] == ["transformer"]


def test_a_served_picture_has_the_same_bytes_alone_and_in_a_batch_of_any_size(agent: Sd3Agent) -> None:
    prompts = [f"a blue square number {number}" for number in range(5)]
    for size in ({}, {"height": 64, "width": 48}):
        alone = [agent.text_to_image([prompt], [seed], **size)["outputs"][0] for seed, prompt in enumerate(prompts)]
        for number in (2, 3, 5):
            batch = agent.text_to_image(prompts[:number], list(range(number)), **size)["outputs"]
            assert all(torch.equal(batch[index], alone[index]) for index in range(number))
        assert not torch.equal(alone[0], alone[1])


def test_a_served_picture_equals_that_of_the_published_pipeline(agent: Sd3Agent) -> None:
    served = agent.text_to_image(["a green ball"], [7])["outputs"]
    with torch.no_grad():
        image = agent.forward(z=None, prompt_keys=keys(agent, "a green ball"), seeds=[7])["images"]
    trained = ((image + 1.0) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1)
    assert (served.int() - trained.int()).abs().max() <= 1  # `forward` equals the pipeline; see the first test


@pytest.mark.parametrize("strength", [0.3, 0.6, 1.0])
def test_image_to_image_renders_what_the_published_pipeline_renders(
    agent: Sd3Agent, model: Path, monkeypatch: pytest.MonkeyPatch, strength: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8, generator=generator)
    pipeline = StableDiffusion3Img2ImgPipeline.from_pretrained(str(model))
    pipeline.set_progress_bar_config(disable=True)
    noise = agent.renderer.initial_latents([5], agent.settings())
    clean = agent.renderer.encode(picture.permute(0, 3, 1, 2) / 127.5 - 1.0, [5 ^ 0x696D67])

    def prepared(image: Any, timestep: torch.Tensor, *_: Any) -> torch.Tensor:
        return pipeline.scheduler.scale_noise(clean, timestep, noise)

    monkeypatch.setattr(pipeline, "prepare_latents", prepared)
    expected = pipeline(
        "a cat", negative_prompt="", image=picture.permute(0, 3, 1, 2) / 255.0, strength=strength, height=32, width=32,
        num_inference_steps=3, guidance_scale=3.0, max_sequence_length=16, output_type="pt",
    ).images  # fmt: skip
    found = agent.image_to_image(["a cat"], [5], picture, strength)["outputs"]
    assert (found[0].float() / 255.0 - expected[0].permute(1, 2, 0)).abs().max() <= 1 / 255


def test_less_strength_leaves_more_of_the_picture(agent: Sd3Agent) -> None:
    picture = torch.full((1, 32, 32, 3), 200, dtype=torch.uint8)
    made = [agent.image_to_image(["a cat"], [1], picture, strength)["outputs"] for strength in (0.3, 0.6, 1.0)]
    nothing_left = agent.text_to_image(["a cat"], [1])["outputs"]
    distances = [(each.float() - nothing_left.float()).abs().mean().item() for each in made]
    assert distances[0] > distances[1] > distances[2]


def test_a_cancelled_sample_stops_and_the_others_keep_their_bytes(
    agent: Sd3Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    whole = agent.text_to_image(["a cat", "a dog", "a ship"], [1, 2, 3])["outputs"]
    monkeypatch.setattr("mora_env_sd3.pictures.picture_agent.report_step", lambda step, num_steps: steps.append(step))
    monkeypatch.setattr(
        "mora_env_sd3.pictures.picture_agent.cancelled_samples",
        lambda: frozenset({1}) if steps[-1] >= 1 else frozenset(),
    )
    left = agent.text_to_image(["a cat", "a dog", "a ship"], [1, 2, 3])["outputs"]
    assert steps == [0, 1, 2, 3, 3, 3], "the last step again before each picture that is decoded"
    assert torch.equal(left[[0, 2]], whole[[0, 2]])
    assert not left[1].any()


def test_cancelling_the_call_ends_it_at_the_next_step(agent: Sd3Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []

    def report(step: int, num_steps: int) -> None:
        steps.append(step)
        if step == 1:
            raise Cancelled("the caller cancelled this call")

    monkeypatch.setattr("mora_env_sd3.pictures.picture_agent.report_step", report)
    with pytest.raises(Cancelled):
        agent.text_to_image(["a cat"], [1])
    assert steps == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"prompts": ["a"], "seeds": [1, 2]}, "as many seeds"),
        ({"prompts": [], "seeds": []}, "as many seeds"),
        ({"prompts": ["a"], "seeds": [1], "height": 30}, "multiples of 16, got 32x30"),
    ],
)
def test_a_picture_that_cannot_be_made_is_refused(agent: Sd3Agent, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(BadArgument, match=said):
        agent.text_to_image(**arguments)
