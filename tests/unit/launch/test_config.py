"""The configuration: one YAML plus changes, strict, with errors that offer the right name."""

from pathlib import Path

import pytest
from mora_launch.config.capability import CAPABILITIES
from mora_launch.config.train_config import load_config
from mora_launch.evaluation.config import is_of_evaluation, load_evaluation
from mora_launch.jobs.placement import PlacedRole, check_devices
from mora_launch.serving.models import served_models
from mora_runtime.errors import PlacementError, SettingsError

ROOT = Path(__file__).resolve().parents[3]
TINY = ROOT / "configs" / "tiny.yaml"
PAPER = ROOT / "configs" / "mora-osp-8xh100.yaml"


def test_shipped_configs_are_valid() -> None:
    paths = sorted((ROOT / "configs").glob("*.yaml"))
    assert {TINY, PAPER, ROOT / "configs" / "shapes.yaml", ROOT / "configs" / "tiny-rounds.yaml"} <= set(paths)
    of_evaluation = [path for path in paths if is_of_evaluation(path)]
    assert {path.name for path in of_evaluation} == {"evaluation.yaml", "tiny-evaluation.yaml"}
    for path in paths:
        load_evaluation(path, []) if path in of_evaluation else load_config(path, [])


def test_the_paper_config_has_the_settings_of_the_paper() -> None:
    config = load_config(PAPER, [])
    assert config.training.num_steps == 12
    assert config.training.batch_size == 4
    assert config.training.checkpoint_every == 4
    assert config.training.schedule == "constant"
    assert config.training.num_warmup_steps == 0
    for _, agent in config.agents.items():
        assert agent.learning_rate == 1e-5
        assert agent.optimizer.kind == "adamw"
        assert agent.optimizer.ema_decay == 0.999
        assert agent.options["dtype"] == "bfloat16"
        assert agent.options["gradient_checkpointing"] is True
    assert {agent.device(r) for _, agent in config.agents.items() for r in range(4)} == {f"cuda:{i}" for i in range(8)}


def test_set_changes_a_nested_value() -> None:
    config = load_config(TINY, ["training.num_steps=3", "data=/some/clip.mkv", "modulation.mode=none"])
    assert config.training.num_steps == 3
    assert config.data.path == "/some/clip.mkv"
    assert config.modulation.mode == "none"


@pytest.mark.parametrize(
    ("change", "offered"),
    [
        ("training.num_step=3", "num_steps"),
        ("agents.image.learning_rat=1", "learning_rate"),
        ("modulation.mod=none", "mode"),
        ("agents.video.optimizer.ema_deca=0.9", "ema_decay"),
    ],
)
def test_a_misspelt_key_is_refused_with_the_nearest_one(change: str, offered: str) -> None:
    with pytest.raises(SettingsError, match=f"unknown key; did you mean `{offered}`"):
        load_config(TINY, [change])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("training.num_steps=0", "greater than or equal to 1"),
        ("training.batch_size=3", "batch_size 3 is not a multiple"),
        ("agents.image.devices=[cuda:0, cuda:1, cuda:2]", "names 3 devices for 1 replica"),
        ("modulation.mode=lerned", "'learned', 'random_init' or 'none'"),
        ("seed=.nan", "seed"),
        ("samples.metrics=[motion_smoothnes]", "samples.metrics: .* did you mean `motion_smoothness`"),
        ("samples.metrics=[tcon]", "samples.metrics: tcon: expected one of subject_consistency"),
        ("samples.metrics=[dynamic_degree, dynamic_degree]", "samples.metrics: expected every dimension once"),
        ("synthesis.evaluation_metrics=[appearance_style]", "evaluation_metrics: appearance_style needs the words"),
        ("synthesis={evaluation_metrics: [dynamic_degree], num_evaluation_prompts: 0}", "set num_evaluation_prompts"),
    ],
)
def test_an_invalid_value_is_refused_with_its_place(change: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load_config(TINY, [change])


@pytest.mark.parametrize("change", ["training.num_steps", "=3", "training.num_steps.deep=3", "seed=[1"])
def test_a_change_of_another_form_is_refused(change: str) -> None:
    with pytest.raises(SettingsError, match="--set"):
        load_config(TINY, [change])


def test_a_missing_or_broken_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_config(tmp_path / "absent.yaml", [])
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    with pytest.raises(SettingsError, match="is not YAML"):
        load_config(broken, [])
    broken.write_text("- 1")
    with pytest.raises(SettingsError, match="expected keys and values"):
        load_config(broken, [])


@pytest.mark.parametrize("device", ["cuda:977", "gpu", "cuda", "cpu:1"])
def test_a_missing_device_is_refused_with_the_role(device: str) -> None:
    with pytest.raises(PlacementError, match=r"video\.3"):
        check_devices([PlacedRole("video.3", device, "opensora", 0, "any")])


BESIDE = "{environment: opensora, kind: opensora, capabilities: [connect_videos]}"


def test_an_agent_outside_the_chain_takes_its_capabilities_from_the_others() -> None:
    served = served_models(load_config(TINY, [f"serving.agents.connector={BESIDE}", "serving.servers.connector=2"]))
    assert served.allowed_capabilities("connector") == {"connect_videos"}
    assert served.allowed_capabilities("video") == set(CAPABILITIES) - {"connect_videos"}
    assert served.roles() == ["image.0", "video.0", "connector.0", "connector.1"]


def test_the_first_editions_name_of_capabilities_still_loads() -> None:
    old = BESIDE.replace("capabilities", "abilities")
    config = load_config(TINY, [f"serving.agents.connector={old}"])
    assert config.serving.agents["connector"].capabilities == ("connect_videos",)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([f"serving.agents.video={BESIDE}"], "serving.agents.video: this name is taken"),
        ([f"serving.agents.a={BESIDE}", f"serving.agents.b={BESIDE}"], "a already has connect_videos"),
        (["serving.servers.vidoe=2"], r"no agent is named vidoe \(known: image, video\)"),
        ([f"serving.agents.c={BESIDE.replace('connect_videos', 'dance')}"], "serving.agents.c.capabilities.0"),
        ([f"serving.agents.c={BESIDE.replace('connect_videos', '')}"], "at least 1 item"),
        ([f"serving.agents.Connect-Or={BESIDE}"], "serving.agents"),
    ],
)
def test_invalid_agents_outside_the_chain_are_refused(changes: list[str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_config(TINY, changes)


def test_a_configuration_of_the_checkout_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load_config(ROOT / "configs" / "tiny.yaml", ())
    monkeypatch.chdir(tmp_path)
    assert load_config(Path("configs/tiny.yaml"), ()) == expected
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "tiny.yaml").write_text("name: nearer\n")
    with pytest.raises(SettingsError, match=r"config.*tiny\.yaml"):
        load_config(Path("configs/tiny.yaml"), ())
    with pytest.raises(SettingsError, match=r"config configs/absent\.yaml: cannot be read: No such file"):
        load_config(Path("configs/absent.yaml"), ())
