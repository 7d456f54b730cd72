"""Prompts, rankings, decisions and measures: the parts of a round that need no model."""

import random
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from mora_data.moving_shapes import made_clip
from mora_data.settings import ClipShape
from mora_launch.rounds.agreement import cohens_kappa
from mora_launch.rounds.decisions import decide, decide_by_rule
from mora_launch.rounds.judging.criteria import CRITERIA
from mora_launch.rounds.judging.emphasis import STRESSED
from mora_launch.rounds.judging.judge import JudgeAnswer, Question, Verdict, ask
from mora_launch.rounds.judging.measured_judge import MeasuredJudge, score
from mora_launch.rounds.judging.measures import MEASURES, measure
from mora_launch.rounds.judging.ranking import RankingDialogue, parse_ranking
from mora_launch.rounds.prompting.grammar import grammar_prompts
from mora_launch.rounds.prompting.prompt_writer import parse_prompts
from mora_launch.rounds.prompting.prompts import new_prompts
from mora_launch.rounds.prompting.seen_prompts import SeenPrompts, similarity, word_pairs
from mora_launch.rounds.settings import PromptSettings, SynthesisSettings
from mora_runtime.errors import JudgeError, RoundError, SettingsError
from mora_runtime.schema import read_settings

SHAPE = ClipShape(num_frames=9, height=64, width=64, fps=8)


def verdict(ranking: tuple[int, ...] | None) -> Verdict:
    return Verdict("judge", "flicker", (0, 1, 2, 3), ranking, ("raw",))


def test_there_are_ten_different_criteria_that_ask_for_one_video_and_whose_measures_exist() -> None:
    assert len(CRITERIA) == 10
    assert len({criterion.question for criterion in CRITERIA.values()}) == 10
    assert len({criterion.title for criterion in CRITERIA.values()}) == 10
    for criterion in CRITERIA.values():
        assert set(criterion.measures) <= set(MEASURES)
        asked, mark, _ = criterion.question.partition("?")
        assert mark, "a question, perhaps with an explanation after it"
        assert asked.startswith(("Which video ", "In which video ")), criterion.question


def test_the_grammar_is_a_function_of_its_seed() -> None:
    first = list(islice(grammar_prompts("a"), 20))
    assert first == list(islice(grammar_prompts("a"), 20))
    assert first != list(islice(grammar_prompts("b"), 20))
    assert all("  " not in prompt and prompt == prompt.strip(" ,") for prompt in first)


def test_similarity_is_the_share_of_word_pairs_that_two_prompts_have_in_common() -> None:
    first, second = word_pairs("A red fox runs, over snow!"), word_pairs("a red fox runs over ice")
    assert first == {"a red", "red fox", "fox runs", "runs over", "over snow"}
    assert similarity(first, second) == 4 / 6
    assert similarity(first, first) == 1.0
    assert similarity(first, word_pairs("fox")) == 0.0


def test_a_prompt_repeats_another_above_the_limit_but_not_at_it() -> None:
    for max_similarity, is_new in ((4 / 6 - 1e-9, False), (4 / 6, True)):
        seen = SeenPrompts(max_similarity)
        assert seen.add("a red fox runs over snow")
        assert seen.add("a red fox runs over ice") == is_new
    seen = SeenPrompts(0.8)
    assert seen.add("?!")
    assert not seen.add("...")  # no words like the first


@pytest.mark.parametrize("max_similarity", [0.1, 0.5, 0.8, 1.0])
def test_repeated_prompts_are_the_same_as_by_comparing_each_with_all(max_similarity: float) -> None:
    draw = random.Random(0)
    prompts = [" ".join(draw.choices("abcd", k=draw.randint(1, 7))) for _ in range(400)]
    seen, kept = SeenPrompts(max_similarity), list[frozenset[str]]()
    for prompt in prompts:
        pairs = word_pairs(prompt)
        is_new = all(similarity(pairs, other) <= max_similarity for other in kept)
        kept += [pairs] if is_new else []
        assert seen.add(prompt) == is_new
    assert len(kept) > 3
    assert len(kept) < len(prompts) or max_similarity == 1.0


def test_prompts_repeat_neither_each_other_nor_used_ones() -> None:
    settings = PromptSettings()
    first = new_prompts(settings, number=16, seed="x", used=[])
    assert len(set(first)) == 16
    assert not set(new_prompts(settings, number=16, seed="x", used=first)) & set(first)


def test_a_source_with_too_few_prompts_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a red fox runs over the snow\nA red fox runs, over the snow!\n\na blue boat on a lake at noon\n")
    settings = PromptSettings(source="file", file=str(path))
    assert len(new_prompts(settings, number=2, seed="", used=[])) == 2
    with pytest.raises(RoundError, match="expected 3 that are new, the source `file` gave 2"):
        new_prompts(settings, number=3, seed="", used=[])


def test_a_round_without_prompts_is_refused() -> None:
    with pytest.raises(SettingsError, match="prompts_per_round is 0"):
        read_settings(SynthesisSettings, {"prompts_per_round": 0}, source="test")


def test_answers_of_prompt_writers_lose_numbers_and_quotes() -> None:
    text = 'Here are some:\n1. "A fox runs far."\n- a boat sails home\n\nno\n* “three birds fly”'
    assert parse_prompts(text) == ["A fox runs far.", "a boat sails home", "three birds fly"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RANKING: 3 > 1 > 4 > 2", (2, 0, 3, 1)),
        ("I looked.\n**RANKING: 1>2>3>4**", (0, 1, 2, 3)),
        ("RANKING: NONE", ()),
        ("RANKING: 4 > 3 > 2 > 1.\n", (3, 2, 1, 0)),
    ],
)
def test_rankings_are_read(text: str, expected: tuple[int, ...]) -> None:
    assert parse_ranking(text, 4) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "The first video is best.", "RANKING: 1 > 2 > 3", "RANKING: 1 > 2 > 3 > 3", "RANKING: 1 > 2 > 3 > 5",
        "RANKING: 0 > 1 > 2 > 3", "RANKING: 1, 2, 3, 4", "RANKING: one > 2 > 3 > 4", "RANKING: 1 = 2 > 3 > 4",
        "RANKING: 1 > 2 > 3 > 4\nRANKING: 2 > 1 > 3 > 4", "ranking maybe 1 > 2 > 3 > 4", "RANKING: 99999999999 > 1",
        "RANKING: none of them > 1", "RANKING: ²>1>3>4",
    ],
)  # fmt: skip
def test_an_invalid_ranking_is_never_guessed(text: str) -> None:
    with pytest.raises(JudgeError):
        parse_ranking(text, 4)


def test_an_unreadable_answer_is_asked_for_again_once_and_then_counts_as_abstention() -> None:
    question = Question("p", CRITERIA["flicker"], (made_clip(0, SHAPE)[1],) * 4)
    good = RankingDialogue(question)
    assert good.take("I like them all.") is None
    answer = good.take("RANKING: 2 > 1 > 3 > 4")
    assert answer is not None
    assert answer.ranking == (1, 0, 2, 3)
    assert answer.raw == ("I like them all.", "RANKING: 2 > 1 > 3 > 4")
    prose = RankingDialogue(question)
    prose.take("first")
    abstained = prose.take("second")
    assert abstained is not None
    assert abstained.ranking is None
    assert abstained.raw == ("first", "second")


def test_judges_that_agree_decide_and_others_leave_it_to_a_person() -> None:
    agreed = decide([verdict((2, 0, 1, 3)), verdict((2, 3, 1, 0))])
    assert agreed is not None
    assert agreed.chosen == 2
    none_good = decide([verdict(()), verdict(())])
    assert none_good is not None
    assert none_good.chosen is None
    assert decide([verdict((2, 0, 1, 3)), verdict((1, 2, 0, 3))]) is None
    assert decide([verdict((2, 0, 1, 3)), verdict(())]) is None
    assert decide([verdict((2, 0, 1, 3)), verdict(None)]) is None
    assert decide([verdict(None), verdict(None)]) is None


def test_the_rule_takes_the_best_mean_rank_and_drops_sets_without_a_good_candidate() -> None:
    assert decide_by_rule([verdict((0, 1, 2, 3)), verdict((3, 1, 2, 0))], 4).chosen == 1
    assert decide_by_rule([verdict((0, 1, 2, 3)), verdict((1, 0, 2, 3))], 4).chosen == 0
    assert decide_by_rule([verdict(None), verdict((3, 1, 2, 0))], 4).chosen == 3
    assert decide_by_rule([verdict(None), verdict(())], 4).chosen is None
    assert decide_by_rule([verdict(None), verdict(None)], 4).chosen is None


class FirstPlaceJudge:
    """A judge with only position bias."""

    name = "first"

    def rank(self, question: Question) -> JudgeAnswer:
        return JudgeAnswer(tuple(range(len(question.clips))), ("",))


def test_shuffling_removes_the_position_bias_of_a_judge() -> None:
    clips = [made_clip(index, SHAPE)[1] for index in range(4)]
    best = [
        ask(FirstPlaceJudge(), prompt="p", criterion_name="flicker", criterion=CRITERIA["flicker"], clips=clips,
            seed=str(seed)).best
        for seed in range(400)
    ]  # fmt: skip
    counts = [best.count(candidate) for candidate in range(4)]
    assert min(counts) > 70


def test_the_measured_judge_ranks_in_any_order_and_finds_no_still_clip_good() -> None:
    clip = made_clip(3, SHAPE)[1]
    noisy = (clip + np.random.default_rng(0).normal(0, 20, clip.shape)).clip(0, 255).astype(np.uint8)
    frozen = np.repeat(clip[:1], len(clip), axis=0)
    judge, criterion = MeasuredJudge(), CRITERIA["imaging_quality"]
    for seed in "abc":
        found = ask(judge, prompt="", criterion_name="", criterion=criterion, clips=[noisy, clip, frozen], seed=seed)
        assert found.best == 1
    still = ask(judge, prompt="", criterion_name="", criterion=criterion, clips=[frozen, frozen], seed="a")
    assert still.ranking == ()


def test_the_score_is_the_weighted_sum_of_the_listed_measures_and_stressed_ones_count_half_more() -> None:
    found = measure(made_clip(3, SHAPE)[1])
    assert list(found) == list(MEASURES)
    plain = sum(MEASURES[name].weight * value for name, value in found.items())
    assert score(found, set()) == pytest.approx(plain)
    for emphasis, stressed in STRESSED.items():
        assert set(stressed) <= set(MEASURES), emphasis
        more = sum(0.5 * MEASURES[name].weight * found[name] for name in stressed)
        assert score(found, set(stressed)) == pytest.approx(plain + more)


def test_kappa_is_agreement_beyond_chance() -> None:
    assert cohens_kappa([(0, 0), (1, 1), (2, 2)]) == 1.0
    assert cohens_kappa([]) is None
    assert cohens_kappa([(0, 0), (0, 1), (1, 0), (1, 1)]) == pytest.approx(0.0)
