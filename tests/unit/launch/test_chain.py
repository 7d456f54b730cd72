"""The chain of a configuration: names, old keys, and that agents fit each other, before anything loads."""

from pathlib import Path

import pytest
from mora_environment.interface import Interface, Port
from mora_launch.config.train_config import TrainConfig, load_config
from mora_launch.environments.agent_options import CheckedOptions
from mora_launch.jobs.chain import check_chain, stage_settings
from mora_runtime.errors import SettingsError

ROOT = Path(__file__).resolve().parents[3]
TINY = ROOT / "configs" / "tiny.yaml"
THREE = ROOT / "configs" / "three-agents.yaml"
IMAGES = Port(modality="images", height=64, width=64)
FRAMES = Port(modality="frames", height=64, width=64, num_frames=9)
SOURCE = Interface(gives={"images": IMAGES}, has_loss=True, needs_targets=True, has_text=True, has_modulation=True)
REFINE = Interface(takes={"images": IMAGES}, gives={"images": IMAGES}, has_text=True, has_modulation=True)
LAST = Interface(takes={"images": Port(modality="images")}, has_loss=True, needs_targets=True, has_modulation=True)
ANIMATOR = Interface(takes={"images": IMAGES}, gives={"frames": FRAMES}, has_loss=True, needs_targets=True)
CRITIC = Interface(takes={"frames": FRAMES}, has_loss=True, is_critic=True)


def checked(interface: Interface | None, weights: str | None = "transformer") -> CheckedOptions:
    return CheckedOptions(
        protocol=1, options={}, components=(), interface=interface, weights=weights, weights_folder=None
    )


def config(*changes: str) -> TrainConfig:
    return load_config(THREE, changes)


def told(names: dict[str, Interface | None], *changes: str) -> str:
    """What `check_chain` says about a configuration with these agents."""
    agents = ", ".join(f"{name}: {{environment: sd3, kind: sd3}}" for name in names)
    chosen = config(f"agents={{{agents}}}", "chain=[]", *changes)
    given = {name: checked(interface) for name, interface in names.items()}
    with pytest.raises(SettingsError) as refused:
        check_chain(chosen, given)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_chain_is_all_agents_in_their_order_unless_the_configuration_says_otherwise() -> None:
    assert load_config(TINY, []).chain_names == ("image", "video")
    assert config("chain=[]").chain_names == ("image", "refine", "video")
    assert config("chain=[image, video]").chain_names == ("image", "video")
    assert config("chain=[image, video]", "losses={video: 1.0, refine: 0.1}").chain_names == (
        "image",
        "video",
        "refine",
    )


def test_the_last_agents_loss_is_the_default() -> None:
    assert config().loss_weights == {"video": 1.0}
    assert config("losses={image: 0.25, video: 2.0}").loss_weights == {"image": 0.25, "video": 2.0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("chain=[image, refin, video]", "chain: there is no agent `refin`; did you mean `refine`"),
        ("chain=[image, refine, image]", "chain: `image` comes twice; .* a chain has no cycle"),
        ("trains=[vidoe]", "trains: there is no agent `vidoe`; did you mean `video`"),
        ("trains=[]", "trains: expected at least one agent"),
        ("losses={vido: 1.0}", "losses: there is no agent `vido`; did you mean `video`"),
        ("losses={video: 0.0}", "losses.video"),
        ("losses={video: .nan}", "losses.video"),
        (
            "agents.image_output={environment: sd3, kind: sd3}",
            "agents.image_output: metrics call what `image` makes so",
        ),
        ("agents.coordinator={environment: sd3, kind: sd3}", "agents.coordinator: this name is taken by Mora itself"),
        ("agents.Image={environment: sd3, kind: sd3}", "agents.Image"),
        ("agents={}", "agents"),
    ],
)
def test_a_wrong_name_is_refused_with_the_nearest_right_one(change: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        config(change)


def test_an_agent_that_trains_must_be_in_the_chain() -> None:
    with pytest.raises(SettingsError, match=r"trains: `refine` is not in the chain \(image, video\)"):
        config("chain=[image, video]", "trains=[refine]")


@pytest.mark.parametrize(
    ("change", "line", "trains", "losses"),
    [
        ("scope=image_only", "`scope: image_only` is `trains: [image]` now", ("image",), {"video": 1.0}),
        ("scope=joint", "`scope: joint` is the default now", None, {"video": 1.0}),
        (
            "training.image_loss_weight=0.5",
            "`training.image_loss_weight: 0.5` is `losses: {image: 0.5, video: 1.0}` now",
            None,
            {"image": 0.5, "video": 1.0},
        ),
        ("training.image_loss_weight=0", "`training.image_loss_weight: 0` is the default now", None, {"video": 1.0}),
    ],
)
def test_old_keys_load_with_one_line_that_says_what_replaced_them(
    change: str,
    line: str,
    trains: tuple[str, ...] | None,
    losses: dict[str, float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    loaded = load_config(TINY, [change])
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1
    assert (loaded.trains, loaded.loss_weights) == (trains, losses)


def test_an_old_key_with_a_wrong_value_is_refused() -> None:
    with pytest.raises(SettingsError, match="scope"):
        load_config(TINY, ["scope=everything"])


def test_agents_that_do_not_train_are_frozen_and_agents_outside_the_chain_left_out() -> None:
    trained = config("chain=[image, video]", "trains=[video]").of_chain()
    assert list(trained.agents) == ["image", "video"]
    image, video = trained.agents["image"], trained.agents["video"]
    assert (image.trainable.scope, image.learning_rate, image.modulation_learning_rate) == ("none", 0.0, 0.0)
    assert (video.trainable.scope, video.learning_rate) == ("all", 2e-3)


def test_a_chain_that_fits_gives_the_coordinators_settings_in_order() -> None:
    chosen = config("losses={image: 0.5, video: 1.0}", "trains=[image, video]")
    given = {"image": checked(SOURCE), "refine": checked(REFINE), "video": checked(LAST)}
    check_chain(chosen, given)
    stages = stage_settings(chosen, given, dict.fromkeys(given, "0123"), 1)
    assert [stage.server for stage in stages] == ["image.1", "refine.1", "video.1"]
    assert [stage.loss_weight for stage in stages] == [0.5, 0.0, 1.0]
    assert [stage.trains for stage in stages] == [True, False, True]


def test_a_critic_closes_the_chain_without_an_optimizer() -> None:
    made = [f"{name}: {{environment: sd3, kind: sd3}}" for name in ("image", "moves", "taste")]
    chosen = config(f"agents={{{', '.join(made)}}}", "chain=[image, moves]", "losses={moves: 1.0, taste: 0.1}")
    given = {"image": checked(SOURCE), "moves": checked(ANIMATOR), "taste": checked(CRITIC, None)}
    check_chain(chosen, given)
    taste = stage_settings(chosen, given, dict.fromkeys(given, "0123"), 0)[-1]
    assert (taste.name, taste.has_optimizer, taste.trains, taste.loss_weight) == ("taste", False, False, 0.1)


def test_agents_that_do_not_fit_are_refused_by_name() -> None:
    wide = SOURCE.model_copy(update={"gives": {"images": IMAGES.model_copy(update={"width": 128})}})
    frames = SOURCE.model_copy(update={"gives": {"images": FRAMES}})
    pictures = SOURCE.model_copy(update={"gives": {"pictures": IMAGES}})
    assert "`b` cannot take `images` of `a`: expected width 64, got 128" in told({"a": wide, "b": REFINE, "c": LAST})
    assert "`b` cannot take `images` of `a`: expected images, got frames" in told({"a": frames, "b": LAST})
    assert "`b` takes `images` (images), but `a` before it gives `pictures`" in told({"a": pictures, "b": LAST})
    assert "`a` takes `images` (images), but it comes first" in told({"a": REFINE, "b": LAST})
    assert "`c` takes `images` (images), but `b` before it gives nothing" in told({"a": SOURCE, "b": LAST, "c": LAST})
    assert "`b` takes nothing, so it must come first" in told({"a": SOURCE, "b": SOURCE})
    assert "the critic `c` must come last" in told({"a": SOURCE, "b": ANIMATOR, "c": CRITIC, "d": LAST})
    assert "`a` (kind sd3) cannot be in a chain" in told({"a": None, "b": LAST})


def test_losses_of_agents_without_one_are_refused() -> None:
    assert "the last agent must have a loss, but: `b`" in told({"a": SOURCE, "b": REFINE})
    said = told({"a": SOURCE, "b": REFINE, "c": LAST}, "losses={b: 1.0, c: 1.0}")
    assert "losses: `b` (kind sd3) has no loss; agents with a loss: a, c" in said
    assert "losses: the last agent `c` needs a weight" in told({"a": SOURCE, "b": REFINE, "c": LAST}, "losses={a: 1.0}")
    said = told({"a": SOURCE, "c": LAST, "x": LAST}, "chain=[a, c]", "losses={c: 1.0, x: 1.0}")
    assert "`x`" in said


def test_an_agent_without_weights_cannot_train() -> None:
    chosen = config("trains=[refine]")
    given = {"image": checked(SOURCE), "refine": checked(REFINE, None), "video": checked(LAST)}
    with pytest.raises(SettingsError, match=r"trains: `refine` \(kind sd3_image_to_image\) cannot be trained"):
        check_chain(chosen, given)
