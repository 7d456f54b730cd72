"""Whole jobs of chains of toy agents: resumption, replicas, frozen agents, critics, refusals."""

import json
import signal
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from mora_launch.cli import cli
from mora_runtime.errors import MoraError
from safetensors.torch import load_file

from tests.integration.training.mora_process import ROOT, MoraTrain
from tests.toy_agents.host import toy

pytestmark = pytest.mark.timeout(400)
CONFIG = "tests/toy_agents/chain.yaml"
QUICK = ["training.batch_size=2", "data.num_clips=4", "samples.enabled=false"]
WEIGHTS = "weights/diffusion_pytorch_model.safetensors"
Z = "coordinator/modulation.safetensors"


def start(run: Path, changes: list[str], *options: str) -> MoraTrain:
    return MoraTrain(run, [*QUICK, *changes], *options, config=CONFIG)


def train(run: Path, *changes: str) -> str:
    code, said = start(run, list(changes)).finish()
    assert code == 0, said
    return said


def tensors(run: Path, step: int, name: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(run / "checkpoints" / f"step-{step:08d}" / name)
    return found


def content(run: Path, step: int) -> dict[str, bytes]:
    folder = run / "checkpoints" / f"step-{step:08d}"
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def metrics(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_an_interrupted_and_resumed_chain_of_three_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    changes = ["training.num_steps=40", "training.checkpoint_every=5"]
    train(tmp_path / "whole", *changes)
    job = start(tmp_path / "cut", changes)
    job.read_until(lambda line: line.startswith("step 1/40"))
    job.process.send_signal(signal.SIGINT)
    code, said = job.finish()
    assert code == 130, said
    assert len(metrics(tmp_path / "cut")) < 40
    code, said = start(tmp_path / "cut", changes, "--resume").finish()
    assert code == 0, said
    whole, cut = content(tmp_path / "whole", 40), content(tmp_path / "cut", 40)
    assert {name.partition("/")[0] for name in whole} == {"first", "second", "third", "coordinator"}
    assert set(whole) == set(cut)
    for name, expected in whole.items():
        assert cut[name] == expected, name


def test_a_run_is_not_continued_with_other_agents_than_its_checkpoint_has(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(run, "training.num_steps=1")
    before = content(run, 1)
    fourth = ["agents.fourth={environment: toys, kind: last}", "chain=[first, second, fourth]"]
    for changes, named in ((["chain=[first, third]"], "agents.second: {"), (fourth, "agents.fourth: not set -> {")):
        code, said = start(run, ["training.num_steps=2", *changes], "--resume").finish()
        assert code == 1
        assert "was started with other values" in said
        assert named in said
        assert "Traceback" not in said
    assert content(run, 1) == before
    assert not (run / "checkpoints" / "step-00000002").exists()


def test_two_replicas_of_a_chain_of_three_equal_one_with_twice_the_samples(tmp_path: Path) -> None:
    rates = [f"agents.{name}.learning_rate=1e-5" for name in ("first", "second", "third")]
    train(tmp_path / "two", "training.num_steps=2", "replicas=2", *rates)
    train(tmp_path / "one", "training.num_steps=2", "training.micro_batch_size=2", *rates)
    for name in (f"first/{WEIGHTS}", f"second/{WEIGHTS}", f"third/{WEIGHTS}", Z):
        two, one = (tensors(tmp_path / run, 2, name) for run in ("two", "one"))
        for parameter in one:
            assert (two[parameter] - one[parameter]).abs().max() <= 1e-6, (name, parameter)


def test_only_the_agents_named_in_trains_change_and_the_metrics_have_every_loss(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(run, "training.num_steps=2", "trains=[first, third]", "losses={first: 0.5, third: 1.0}")
    # each toy's weights are a function of the seed in the configuration
    start_of_first, start_of_second = (toy(*each).model.state_dict() for each in (("source", 1), ("transform", 2)))
    for name, value in tensors(run, 2, f"second/{WEIGHTS}").items():
        assert torch.equal(value, start_of_second[name])
    assert any(
        not torch.equal(value, start_of_first[name]) for name, value in tensors(run, 2, f"first/{WEIGHTS}").items()
    )
    for line in metrics(run):
        losses = line["losses"]
        assert isinstance(losses, dict)
        assert line["loss"] == pytest.approx(0.5 * losses["first"] + losses["third"], rel=1e-6)
        norms = line["gradient_norm"]
        assert isinstance(norms, dict)
        assert norms["first_output"] > 0.0
        assert norms["second_output"] > 0.0


def test_a_critic_at_the_end_trains_the_chain_before_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    critic = [
        "agents.third.kind=mover", "agents.taste={environment: toys, kind: critic}", "losses={taste: 1.0}",
        "chain=[first, second, third]", "training.num_steps=30", "samples.enabled=true",
        *(f"agents.{name}.learning_rate=3e-3" for name in ("first", "second", "third")),
    ]  # fmt: skip
    train(run, *critic)
    losses = [float(str(line["loss"])) for line in metrics(run)]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert not (run / "checkpoints" / "step-00000030" / "taste").exists()
    assert set(tensors(run, 30, Z)) == {"first", "second"}, "an agent without z has none"
    assert (run / "samples" / "after-0.mp4").stat().st_size > 500
    assert (run / "samples" / "after-0-second.png").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["agents.second.environment=toy"], "unknown environment `toy`; did you mean `toys`"),
        (["agents.second.kind=transfrom"], "unknown kind of agent `transfrom`; did you mean `transform`"),
        (["agents.second.kind=mover"], "chain: `third` takes `images` (images), but `second` before it gives `frames`"),
        (["chain=[second, third]"], "chain: `second` takes `images` (images), but it comes first"),
        (["chain=[first, second]"], "the last agent must have a loss, but: `second` (kind transform) has no loss"),
        (["chain=[first, second, third, first]"], "`first` comes twice"),
        (["losses={second: 1.0, third: 1.0}"], "losses: `second` (kind transform) has no loss"),
        (["environments.toys.package=tests.toy_agent"], "tests.toy_agent"),
        (["environments.toys.python=/nowhere/python"], "/nowhere/python is not a file"),
    ],
)
def test_a_chain_that_cannot_work_is_refused_before_anything_loads(
    tmp_path: Path, changes: list[str], said: str
) -> None:
    settings = [word for change in [*QUICK, *changes] for word in ("--set", change)]
    refused = CliRunner().invoke(cli, ["train", str(ROOT / CONFIG), "--run", str(tmp_path / "run"), *settings])
    assert isinstance(refused.exception, MoraError), refused.output
    assert said in str(refused.exception).replace("\n", " ")
    assert not (tmp_path / "run" / "roles").exists()
