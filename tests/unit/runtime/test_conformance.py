"""The conformance suite passes for sound kinds, and each check fails for a kind that is broken in that one way."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from mora_environment import Kind
from mora_environment.conformance.outcome import Outcome
from mora_environment.conformance.suite import SERVER_CHECK, check_kind, check_kinds
from mora_runtime.errors import SettingsError
from toy_environment.__main__ import KINDS
from toy_environment.broken.__main__ import KINDS as BROKEN_KINDS

HERE = Path(__file__).parent
PACKAGE = "toy_environment"
BROKEN_PACKAGE = "toy_environment.broken"
OUTPUTS, REPEAT, BATCH, GRADIENTS = (
    "outputs are as declared", "calls repeat", "batches equal samples", "gradients equal differences",
)  # fmt: skip
DESCRIBED, COMPLETE, SAME, REFUSED = (
    "it is described", "scores are complete", "scores repeat", "unusable videos are refused",
)  # fmt: skip


def outcomes(kinds: Mapping[str, Kind], package: str, name: str, *, with_server: bool = False) -> dict[str, Outcome]:
    return {each.check: each for each in check_kind(kinds, package, name, with_server=with_server)}


@pytest.mark.parametrize("name", list(KINDS))
def test_a_sound_kind_passes_every_check(name: str) -> None:
    found = outcomes(KINDS, PACKAGE, name)
    assert [each for each in found.values() if not each.ok] == []


def test_the_checks_of_a_kind_follow_from_its_interface() -> None:
    plain, critic, paint = (set(outcomes(KINDS, PACKAGE, name)) for name in ("plain", "critic", "paint"))
    assert plain == {"entry is sound"}
    assert {f"score: {OUTPUTS}", f"loss: {GRADIENTS}"} <= critic
    assert not {"prompts have keys", "clips have keys"} & critic
    assert {f"{method}: {BATCH}" for method in ("forward", "loss", "generate")} <= paint


@pytest.mark.parametrize(
    ("name", "failing", "said"),
    [
        ("without_module", ["entry is sound"], "its builder: `toy_environment.absent:Agent` cannot be imported"),
        ("without_class", ["entry is sound"], "PlainAgnet` cannot be imported"),
        ("without_option", ["entry is sound"], "says weights=`wights`"),
        ("MakerThatTellsNothing", ["tiny models are made"], "expected options"),
        ("MakerThatFails", ["tiny models are made"], "OSError: no room for the models"),
        ("MakerOfOtherOptions", ["options are accepted"], "sides: unknown key; did you mean `side`?"),
        ("UnstableOptions", ["options are accepted"], "with all defaults are refused"),
        ("MakerOfHalfAModel", ["tiny models load"], "Missing key"),
        ("MoreNoiseOptions", ["tiny models load"], "needs a method `initial_noise`"),
        ("WithoutTargets", ["tiny models load"], "has no argument `target_keys`"),
        ("NeedsMore", ["tiny models load"], "its argument `size` has no default"),
        ("WithoutGraph", ["tiny models load"], "must be marked with @remote(differentiable=True)"),
        ("WithoutConfig", ["promised methods exist"], "its agent has no method `model_config()`"),
        ("LooseOptions", ["options refuse unknown keys"], "expected an error for the unknown key `weight_`"),
        ("RandomKeys", ["prompts have keys"], "expected the same keys for the same prompts"),
        ("FlatRows", ["rows start z"], "rows: expected float32 (rows, d), got torch.float64"),
        ("OneNoise", ["seeds have noise"], "expected other noise for another seed"),
        ("NewKeys", ["clips have keys"], "expected the same key for the same clip"),
        ("OneKey", ["clips have keys"], "expected other keys for other clips, got clip twice"),
        ("DoubleImages", [f"forward: {OUTPUTS}"], "images: expected torch.float32 (2, 3, 4, 4), got torch.float64"),
        ("SmallerImages", [f"forward: {OUTPUTS}"], "(2, 3, 4, 4), got torch.float32 (2, 3, 4, 3)"),
        ("InfiniteImages", [f"forward: {OUTPUTS}"], "images: expected finite numbers"),
        ("Unnamed", [f"forward: {OUTPUTS}"], "expected a tensor `images`, got ['loss', 'pictures']"),
        ("FloatClips", [f"generate: {OUTPUTS}"], "outputs: expected torch.uint8 (2, 2, 4, 4, 3)"),
        ("ScoreTable", [f"score: {OUTPUTS}"], "scores: expected torch.float32 (2), got torch.float32 (2, 1)"),
        ("Counting", [f"forward: {REPEAT}"], "images: expected the same bits from the same call"),
        ("DrawsInVain", [f"forward: {REPEAT}"], "it draws from torch's global generator"),
        ("GlobalNoise", [f"forward: {REPEAT}"], "it draws from torch's global generator"),
        ("BatchNorm", [f"forward: {BATCH}"], "images: a sample differs by"),
        ("OneSeed", [f"generate: {BATCH}"], "outputs: a sample differs by"),
        ("SummedLoss", [f"loss: {BATCH}", f"forward: {BATCH}"], "loss: a sample differs by"),
        ("DetachedPictures", [f"forward: {GRADIENTS}"], "the gradient in pictures is wrong"),
        ("HalfDetachedPictures", [f"forward: {GRADIENTS}"], "the gradient in pictures is wrong"),
        ("DetachedModulation", [f"forward: {GRADIENTS}"], "the gradient in z is wrong"),
        ("DetachedImages", [f"forward: {GRADIENTS}"], "the gradient in"),
        ("FrozenNoise", [f"loss: {GRADIENTS}", f"forward: {GRADIENTS}"], "the gradient in parameter noise is wrong"),
        ("OneVersion", [f"measure: {DESCRIBED}"], "expected one version a dimension, got 1 of 2"),
        ("WholeScore", [f"measure: {COMPLETE}"], "brightness: expected a float `score`"),
        ("NoWeight", [f"measure: {COMPLETE}"], "brightness: expected a positive weight, got 0.0"),
        ("NanOfSecondDimension", [f"measure: {COMPLETE}"], "darkness: score: expected finite floats"),
        ("DoubleDetail", [f"measure: {COMPLETE}"], "brightness: frames: expected finite floats or a float32 tensor"),
        ("Remembers", [f"measure: {SAME}"], "brightness: expected the same score for the same video"),
        ("ChangesFrames", [f"measure: {SAME}"], "brightness: it changed the frames that it was given"),
        ("TakesFloats", [f"measure: {REFUSED}"], "float frames: expected BadArgument, got an answer"),
        ("WithoutWords", ["tiny models load"], "it has no argument `words`"),
        ("SteepLoss", [f"loss: {GRADIENTS}", f"forward: {GRADIENTS}"], "along the gradient backward gives"),
    ],
)  # fmt: skip
def test_a_check_fails_for_a_kind_that_is_broken_in_its_one_way(name: str, failing: list[str], said: str) -> None:
    found = outcomes(BROKEN_KINDS, BROKEN_PACKAGE, name)
    failed = {each.check: each.detail for each in found.values() if not each.ok}
    assert set(failing) <= set(failed)
    assert all(said in failed[check] for check in failing), failed
    follow = {f"measure: {SAME}"} if name.startswith("Nan") else set()  # NaN never equals NaN
    follow |= {f"forward: {REPEAT}", f"forward: {BATCH}", f"forward: {GRADIENTS}"}
    assert set(failed) - set(failing) <= follow, failed


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("CrashesOnKeys", "expected BadArgument, got AgentFailed: spawned.0: checked.forward: KeyError"),
        ("TakesAnything", "initial_noise(seed) with a wrong argument: expected BadArgument, got AgentFailed"),
    ],
)
def test_errors_that_do_not_cross_a_server_as_the_callers_are_found(name: str, said: str) -> None:
    found = outcomes(BROKEN_KINDS, BROKEN_PACKAGE, name, with_server=True)
    assert [each.check for each in found.values() if not each.ok] == [SERVER_CHECK]
    assert said in found[SERVER_CHECK].detail


def test_the_command_prints_a_line_a_check_and_writes_json(tmp_path: Path) -> None:
    command = [sys.executable, "-m", PACKAGE, "check", "paint", "plain", "--json", str(tmp_path / "found.json")]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["package"] == PACKAGE
    assert list(found["kinds"]) == ["paint", "plain"]
    assert found["kinds"]["paint"][-1]["check"] == SERVER_CHECK
    lines = done.stdout.splitlines()
    assert len(lines) == len(found["kinds"]["paint"]) + len(found["kinds"]["plain"]) + 1
    assert lines[-1] == "plain: its models are not checked: its entry in KINDS has no `tiny`"


def test_a_failed_check_gives_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_kinds(BROKEN_KINDS, BROKEN_PACKAGE, ["without_module", "MakerThatFails"], tmp_path / "found.json") == 1
    assert "MakerThatFails: tiny models are made: FAILED OSError: no room for the models" in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())["kinds"]["MakerThatFails"]
    assert found[-1] == {"check": "tiny models are made", "ok": False, "detail": "OSError: no room for the models"}


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(SettingsError, match="unknown kind of agent `pint`; did you mean `paint`"):
        check_kinds(KINDS, PACKAGE, ["pint"], None)
