"""The judge of drawn shapes, the criteria that judges share, and the prompts of shapes."""

from __future__ import annotations

import numpy as np
import pytest
from mora_data.moving_shapes import MovingShape, all_shapes, is_held_out
from mora_data.settings import ClipShape
from mora_launch.config.train_config import TrainConfig, load_config
from mora_launch.environments.venvs import ROOT
from mora_launch.rounds.decisions import decide
from mora_launch.rounds.judging.criteria import CRITERIA
from mora_launch.rounds.judging.emphasis import Emphasis
from mora_launch.rounds.judging.judge import Verdict, ask
from mora_launch.rounds.judging.judges import judged_criteria, open_judges
from mora_launch.rounds.judging.measured_judge import MeasuredJudge
from mora_launch.rounds.judging.shapes_judge import ShapesJudge
from mora_launch.rounds.prompting.held_out import held_out_prompts
from mora_launch.rounds.prompting.prompts import new_prompts
from mora_launch.rounds.settings import PromptSettings, SynthesisSettings
from mora_runtime.errors import SettingsError

SHAPE = ClipShape(num_frames=5, height=32, width=32)
WANTED = MovingShape("red", "circle", "left", "slowly")
OTHER_COLOUR = MovingShape("blue", "circle", "left", "slowly")
OTHER_SPEED = MovingShape("red", "circle", "left", "quickly")
OPPOSITE = MovingShape("yellow", "circle", "right", "quickly")


def said(emphasis: Emphasis, *shown: MovingShape, prompt: str = WANTED.prompt, seed: str = "") -> Verdict:
    clips = [shape.clip(SHAPE, (0.5 * number, 0.0)) for number, shape in enumerate(shown)]  # no two are the same bytes
    criterion = CRITERIA["prompt_alignment"]
    return ask(
        ShapesJudge(emphasis), prompt=prompt, criterion_name="prompt_alignment", criterion=criterion, clips=clips,
        seed=seed,
    )  # fmt: skip


@pytest.mark.parametrize("seed", ["a", "b", "c"])
def test_the_candidate_that_shows_the_prompt_is_the_best_in_any_order(seed: str) -> None:
    verdict = said("even", OPPOSITE, OTHER_SPEED, WANTED, OTHER_COLOUR, seed=seed)
    assert verdict.best == 2
    assert verdict.ranking is not None
    assert verdict.ranking[-1] == 0


def test_each_emphasis_is_strict_about_its_own_properties() -> None:
    assert said("picture", OTHER_COLOUR, OTHER_SPEED).best == 1
    assert said("motion", OTHER_COLOUR, OTHER_SPEED).best == 0
    assert said("picture", OTHER_COLOUR, OPPOSITE).ranking == ()
    assert said("motion", OTHER_SPEED, OPPOSITE).ranking == ()


@pytest.mark.parametrize("seed", ["a", "b", "c", "d"])
def test_two_emphases_agree_on_one_of_several_equal_candidates(seed: str) -> None:
    shown = [WANTED, OPPOSITE, WANTED, OTHER_COLOUR]
    picture, motion = (said(emphasis, *shown, seed=seed + emphasis) for emphasis in ("picture", "motion"))
    decision = decide([picture, motion])
    assert decision is not None
    assert decision.chosen in (0, 2)


def test_a_prompt_without_a_shape_and_another_criterion_are_not_judged() -> None:
    assert said("even", WANTED, OPPOSITE, prompt="a cat on the moon").ranking is None
    clips = [WANTED.clip(SHAPE), OPPOSITE.clip(SHAPE)]
    other = ask(
        ShapesJudge(), prompt=WANTED.prompt, criterion_name="flicker", criterion=CRITERIA["flicker"], clips=clips,
        seed="",
    )  # fmt: skip
    assert other.ranking is None


@pytest.mark.parametrize("name", ["prompt_alignment", "physical_plausibility"])
def test_the_measured_judge_abstains_from_what_it_cannot_measure(name: str) -> None:
    clips = [WANTED.clip(SHAPE), OPPOSITE.clip(SHAPE)]
    verdict = ask(
        MeasuredJudge(), prompt=WANTED.prompt, criterion_name=name, criterion=CRITERIA[name], clips=clips, seed=""
    )
    assert (verdict.ranking, verdict.note) == (None, "this criterion cannot be measured")


def shared(*kinds: str, criteria: tuple[str, ...] = tuple(CRITERIA)) -> list[str]:
    settings = SynthesisSettings.model_validate({"judges": [{"kind": kind} for kind in kinds], "criteria": criteria})
    return judged_criteria(settings, open_judges(settings, {}))


def test_only_criteria_that_both_judges_can_judge_are_drawn() -> None:
    assert shared("shapes", "shapes") == ["prompt_alignment"]
    measured = shared("measured", "measured")
    assert set(measured) == set(CRITERIA) - {"prompt_alignment", "physical_plausibility"}


def test_judges_without_a_common_criterion_are_refused() -> None:
    with pytest.raises(
        SettingsError, match=r"shapes-even can judge prompt_alignment; measured-even can judge .*flicker"
    ):
        shared("shapes", "measured")
    with pytest.raises(SettingsError, match=r"measured-even can judge none"):
        shared("measured", "measured", criteria=("prompt_alignment",))


def config(*changes: str) -> TrainConfig:
    return load_config(ROOT / "configs" / "tiny-rounds.yaml", changes)


def test_prompts_of_shapes_and_held_out_ones_have_no_combination_in_common() -> None:
    given = config("synthesis.prompts.source=shapes", "synthesis.num_evaluation_prompts=16")
    held_out = held_out_prompts(given)
    prompts = new_prompts(PromptSettings(source="shapes", max_similarity=1.0), number=48, seed="s", used=held_out)
    assert {MovingShape.of_prompt(prompt) for prompt in held_out} == {
        each for each in all_shapes() if is_held_out(each)
    }
    assert len({MovingShape.of_prompt(prompt) for prompt in prompts}) == 48


def test_held_out_prompts_can_come_from_a_file(tmp_path: object) -> None:
    path = f"{tmp_path}/prompts.txt"
    with open(path, "w", encoding="utf-8") as file:
        file.write("a ship in a storm\na lighthouse at night\n")
    given = config(f"synthesis.evaluation_prompts={path}", "synthesis.num_evaluation_prompts=2")
    assert held_out_prompts(given) == ["a ship in a storm", "a lighthouse at night"]
    assert held_out_prompts(config())[0] != "a ship in a storm"


def test_a_clip_of_noise_agrees_with_nothing() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (5, 32, 32, 3), np.uint8)
    verdict = ask(
        ShapesJudge("motion"), prompt=WANTED.prompt, criterion_name="prompt_alignment",
        criterion=CRITERIA["prompt_alignment"], clips=[noise, noise[::-1]], seed="",
    )  # fmt: skip
    assert verdict.ranking == ()
