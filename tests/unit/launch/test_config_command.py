"""`mora config` explains every key and shows the values of a configuration."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result
from mora_launch.cli import cli
from mora_launch.config.train_config import load_config
from mora_launch.environments.venvs import ROOT
from mora_runtime.errors import SettingsError

TINY = str(ROOT / "configs" / "tiny.yaml")


def config(*words: str) -> Result:
    return CliRunner().invoke(cli, ["config", *words])


def test_a_key_is_explained_with_type_limits_default_and_meaning() -> None:
    told = config("training.batch_size").output.splitlines()
    assert [line.strip() for line in told] == [
        "training.batch_size",
        "integer, 1 or more; default 4",
        "samples per optimisation step, over all replicas and micro-batches",
    ]


def test_a_section_is_all_its_keys_and_a_name_stands_for_any() -> None:
    by_name = config("agents.image.trainable").output
    assert "agents.NAME.trainable.lora_rank" in by_name
    assert by_name == config("agents.NAME.trainable").output
    assert "serving.agents.NAME.kind" in config("serving.agents").output, "it has the keys of `agents.NAME`"


def test_the_values_of_a_configuration_with_the_changed_ones_marked() -> None:
    lines = config(TINY, "--set", "training.num_steps=7").output.splitlines()
    assert "* training.num_steps: 7" in lines
    assert "  training.clip_norm: 1.0" in lines
    assert "* agents.video.options.snr_gamma: 5.0" in lines
    assert "  synthesis.judges[1].emphasis: motion" in lines


def test_all_values_that_are_printed_can_be_set_again() -> None:
    changes = [
        line[2:].replace(": ", "=", 1)
        for line in config(TINY).output.splitlines()
        if ": " in line and not line.startswith("(") and "[" not in line.split(": ")[0]
    ]
    assert len(changes) > 90
    assert load_config(ROOT / "configs" / "tiny.yaml", changes) == load_config(ROOT / "configs" / "tiny.yaml", ())


def test_the_options_of_an_agent_are_those_of_its_kind() -> None:
    told = config(TINY, "agents.video.options").output
    assert "agents.video.options.scheduler: pndm" in told
    assert "pndm, euler_ancestral, euler, ddim, ddpm or dpm_solver; default pndm" in told
    assert "agents.video.options.text_dropout: 0.0" in told, "a default that the configuration does not have"
    (guidance,) = [line for line in told.splitlines() if "guidance_scale" in line]
    assert guidance == "agents.video.options.guidance_scale: 3.0"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("trainin.batch_size",), r"trainin\.batch_size: unknown key; did you mean `training\.batch_size`"),
        ((TINY, "agents.sound"), r"agents\.sound: unknown key"),
        ((TINY, "agents.video.options.sheduler"), r"did you mean `agents\.video\.options\.scheduler`"),
        (("no.yaml",), r"config no\.yaml: cannot be read"),
    ],
)
def test_what_does_not_exist_is_named_with_the_nearest(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        raise config(*words).exception or AssertionError("it was accepted")


@pytest.mark.parametrize("words", [("training", "--set", "seed=1"), (TINY, "training", "more")])
def test_words_that_do_not_go_together_are_refused(words: tuple[str, ...]) -> None:
    assert config(*words).exit_code == 2
