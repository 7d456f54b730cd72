"""The image-to-image agent as a differentiable stage. Its capability is compared with diffusers in `test_agent`."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mora_env_sd3.agent import Sd3Agent
from mora_env_sd3.image_to_image import ImageToImageRenderer, fit_images
from mora_env_sd3.image_to_image_agent import _NOISE_STREAM, Sd3ImageToImageAgent
from mora_env_sd3.options import Sd3ImageToImageOptions, Sd3Options
from mora_env_sd3.renderer import Renderer
from mora_env_sd3.text_encoders import TextEmbedding
from mora_environment.interface import Port
from mora_runtime.errors import BadArgument, SettingsError
from mora_runtime.schema import read_settings

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
CPU = torch.device("cpu")


def refiner(options: Sd3Options, **changes: Any) -> Sd3ImageToImageAgent:
    wanted = {**options.model_dump(), "strength": 0.6, "gradient_steps": "all", **changes}
    return Sd3ImageToImageAgent(Sd3ImageToImageOptions(**wanted), CPU)


@pytest.fixture(scope="module")
def refine(options: Sd3Options) -> Sd3ImageToImageAgent:
    return refiner(options)


def keys(agent: Sd3ImageToImageAgent, *prompts: str) -> list[str]:
    found: list[str] = agent.encode(prompts=list(prompts))["keys"]
    return found


def pictures(num: int, height: int = 32, width: int = 32) -> torch.Tensor:
    made = torch.rand(num, 3, height, width, generator=torch.Generator().manual_seed(7))
    return (made * 255).round() / 127.5 - 1.0


def test_forward_makes_the_picture_of_the_capability(refine: Sd3ImageToImageAgent) -> None:
    images = pictures(1)
    with torch.no_grad():
        made = refine.forward(z=None, prompt_keys=keys(refine, "a cat"), seeds=[5], images=images)["images"]
    as_bytes = ((images + 1.0) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
    served = refine.image_to_image(["a cat"], [5 ^ _NOISE_STREAM], as_bytes, 0.6)["outputs"]
    trained = ((made + 1.0) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1)
    assert made.dtype == torch.float32
    assert (served.int() - trained.int()).abs().max() <= 1


def test_the_same_seed_makes_the_same_picture_in_any_batch(refine: Sd3ImageToImageAgent) -> None:
    both, images = keys(refine, "a blue square", "a green ball"), pictures(2)
    with torch.no_grad():
        batch = refine.forward(z=None, prompt_keys=both, seeds=[1, 2], images=images)["images"]
        again = refine.forward(z=None, prompt_keys=both, seeds=[1, 2], images=images)["images"]
        alone = refine.forward(z=None, prompt_keys=both[1:], seeds=[2], images=images[1:])["images"]
        other = refine.forward(z=None, prompt_keys=both[1:], seeds=[3], images=images[1:])["images"]
    assert torch.equal(batch, again)
    assert torch.allclose(batch[1], alone[0], atol=1e-5)
    assert not torch.allclose(alone, other)


def test_its_noise_is_not_that_of_the_text_to_image_agent(refine: Sd3ImageToImageAgent, agent: Sd3Agent) -> None:
    own = refine.initial_noise(seed=3)["noise"]
    assert torch.equal(own, refine.initial_noise(seed=3)["noise"])
    assert not torch.equal(own, agent.initial_noise(seed=3)["noise"])


class _Double:
    """The stage in float64: a scalar function of images and z, and its finite differences."""

    def __init__(self, agent: Sd3ImageToImageAgent, strength: float) -> None:
        (key,) = keys(agent, "a cat")
        prompts, negative = agent.embeddings([key])
        self._prompts = [self._double(each) for each in prompts]
        self._negative = self._double(negative)
        self._settings = agent.settings()
        self._strength = strength
        renderer = agent.renderer
        self.transformer, vae = renderer.transformer.double(), renderer.vae.double()
        self._renderer = _DoubleRenderer(self.transformer, vae, _Scheduler(renderer._scheduler_config))
        generator = torch.Generator().manual_seed(1)
        self._weight = torch.randn(1, 3, 32, 32, generator=generator, dtype=torch.float64)

    @staticmethod
    def _double(text: TextEmbedding) -> TextEmbedding:
        return TextEmbedding(text.joint.double(), text.pooled.double())

    def __call__(self, images: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        stage = ImageToImageRenderer(self._renderer)
        made = stage.render(z, self._prompts, self._negative, [5], images, self._strength, self._settings)
        return (made * self._weight).sum()


class _DoubleRenderer(Renderer):
    """A renderer without the two roundings to float32: of the latents in every step, and of the finished pixels."""

    def schedule(self, *arguments: Any) -> Any:
        scheduler, timesteps = super().schedule(*arguments)
        sigmas = iter(scheduler.sigmas[-len(timesteps) - 1 :].double().diff())

        def step(velocity: torch.Tensor, timestep: torch.Tensor, latents: torch.Tensor, **_: Any) -> Any:
            return (latents + next(sigmas) * velocity,)

        scheduler.step = step
        return scheduler, timesteps

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        config = self.vae.config
        return self.vae.decode(latents / config.scaling_factor + config.shift_factor, return_dict=False)[0]


class _Scheduler:
    """Only a configuration, like the scheduler that a renderer gets."""

    def __init__(self, config: Any) -> None:
        self.config = config


def slope(function: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor, direction: torch.Tensor) -> float:
    step = 1e-4
    with torch.no_grad():
        return float((function(at + step * direction) - function(at - step * direction)) / (2 * step))


@pytest.mark.parametrize("size", [(32, 32), (48, 40)])
def test_gradients_equal_finite_differences_in_float64(options: Sd3Options, size: tuple[int, int]) -> None:
    stage = _Double(refiner(options), 0.6)
    images = pictures(1, *size).double().requires_grad_(True)
    z = torch.randn(2, 64, generator=torch.Generator().manual_seed(2)).double().requires_grad_(True)
    weight = stage.transformer.get_parameter("transformer_blocks.0.attn.to_q.weight")
    stage(images, z).backward()
    assert images.grad is not None
    assert z.grad is not None
    assert weight.grad is not None
    start = weight.detach().clone()

    def with_weight(value: torch.Tensor) -> torch.Tensor:
        weight.data.copy_(value)
        try:
            return stage(images, z)
        finally:
            weight.data.copy_(start)

    for number, (function, at, gradient) in enumerate(
        (
            (lambda value: stage(value, z), images, images.grad),
            (lambda value: stage(images, value), z, z.grad),
            (with_weight, start, weight.grad),
        )
    ):
        direction = torch.randn(at.shape, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
        expected = float((gradient * direction).sum())
        assert slope(function, at.detach(), direction) == pytest.approx(expected, rel=1e-4)
        assert abs(expected) > 1e-3


def test_before_the_last_k_steps_the_prediction_counts_as_a_constant(options: Sd3Options) -> None:
    found = {}
    for steps in (1, "all"):
        agent = refiner(options, gradient_steps=steps)
        images = pictures(1).requires_grad_(True)
        made = agent.forward(z=None, prompt_keys=keys(agent, "a ship"), seeds=[4], images=images)["images"]
        made.square().mean().backward()
        weight = agent.module().get_parameter("proj_out.weight").grad
        assert images.grad is not None
        assert images.grad.abs().max() > 0
        found[steps] = (made.detach(), images.grad, weight)
    assert torch.equal(found[1][0], found["all"][0])
    for one, every in zip(found[1][1:], found["all"][1:], strict=True):
        assert not torch.allclose(one, every)


def test_at_strength_one_the_images_do_not_matter(options: Sd3Options) -> None:
    agent = refiner(options, strength=1.0)
    arguments = {"z": None, "prompt_keys": keys(agent, "a ship"), "seeds": [4]}
    with torch.no_grad():
        made = [
            agent.forward(images=images, **arguments)["images"] for images in (pictures(1), torch.zeros(1, 3, 32, 32))
        ]
    assert torch.equal(made[0], made[1])


def test_images_of_another_shape_are_scaled_to_cover_and_cropped() -> None:
    wide = torch.zeros(1, 3, 32, 96)
    wide[..., 32:64] = 1.0
    assert torch.equal(fit_images(wide, 32, 32), torch.ones(1, 3, 32, 32))
    assert fit_images(wide, 64, 48).shape == (1, 3, 64, 48)
    same = torch.rand(1, 3, 32, 32)
    assert fit_images(same, 32, 32) is same


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"strength": 0.0}, "greater than 0"),
        ({"strength": 1.1}, "less than or equal to 1"),
        ({"gradient_steps": 3}, r"must be between 1 and 2, the steps that strength 0\.6 leaves of 3"),
        ({"strength": 0.7}, r"strength 0\.7 skips none of the 3 denoising steps, .*; expected at most 0\.667"),
        ({"strenght": 0.5}, "did you mean `strength`"),
    ],
)
def test_options_that_do_not_fit_are_named(options: Sd3Options, changes: dict[str, Any], said: str) -> None:
    content = {**options.model_dump(), "strength": 0.6, **changes}
    with pytest.raises(SettingsError, match=said):
        read_settings(Sd3ImageToImageOptions, content, source="agents.refine.options")


def test_the_interface_is_that_of_a_transform_without_loss(options: Sd3Options) -> None:
    found = Sd3ImageToImageOptions(**options.model_dump(), strength=0.6).interface()
    assert found.takes == {"images": Port(modality="images")}
    assert found.gives == {"images": Port(modality="images", height=32, width=32)}
    assert not found.has_loss


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": torch.zeros(1, 32, 32, 3)}, r"images: expected float \(B, 3, H, W\)"),
        ({"images": torch.zeros(1, 3, 32, 32, dtype=torch.uint8)}, r"images: expected float"),
        ({"images": torch.zeros(2, 3, 32, 32)}, "got 1 prompts, 1 seeds, 2 images"),
        ({"seeds": [1, 2]}, "got 1 prompts, 2 seeds, 1 images"),
        ({"prompt_keys": ["absent"]}, "unknown prompt key `absent`"),
    ],
)
def test_bad_arguments_are_refused(refine: Sd3ImageToImageAgent, changes: dict[str, Any], said: str) -> None:
    good = {"z": None, "prompt_keys": keys(refine, "a cat"), "seeds": [1], "images": torch.zeros(1, 3, 32, 32)}
    with pytest.raises(BadArgument, match=said):
        refine.forward(**{**good, **changes})
