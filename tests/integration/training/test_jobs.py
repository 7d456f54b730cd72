"""Whole jobs through the command line: success, interruption, resumption, death, refusal.

Jobs that succeed or resume train tiny models of the real architectures. What surrounds the models is tested with toys.
"""

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from mora_launch.cli import cli
from mora_runtime.errors import MoraError
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.toy_agents.agents import WIDTH, ToyLast
from tests.toy_agents.options import LastOptions

from .mora_process import QUICK, ROOT, MoraTrain, train

# several whole jobs a test, each of which loads all models
pytestmark = pytest.mark.timeout(900)

TINY = ROOT / "configs" / "tiny.yaml"
TOYS = str(ROOT / "tests" / "toy_agents" / "pair.yaml")
ENDLESS = [*QUICK, "training.num_steps=50000"]
WEIGHTS = "weights/diffusion_pytorch_model.safetensors"


def state_files(run: Path, step: int) -> dict[str, bytes]:
    """Content of every file of a checkpoint except its manifest."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def mora(command: str, run: Path, *options: str) -> tuple[int, str]:
    """Run a command about a run; returns exit code and output."""
    done = subprocess.run(
        [ROOT / "mora", command, run, *options], capture_output=True, text=True, check=False, timeout=200, cwd=ROOT
    )
    return done.returncode, done.stdout + done.stderr


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_metrics_samples_and_a_loadable_checkpoint(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    for line in lines:
        assert set(line["z_norm"]) == set(line["alpha"]) == {"image", "video"}
        assert line["alpha"]["image"] == pytest.approx(line["z_norm"]["image"] / 2)
        assert {"image_forward", "video_forward", "video_backward", "image_backward"} <= set(line["breakdown_s"])
    assert list((finished / "tensorboard").glob("events*"))
    with Image.open(finished / "samples" / "contact-sheet.png") as sheet:
        assert sheet.size[0] > 300
    assert (finished / "samples" / "before-0.mp4").stat().st_size > 500
    assert (finished / "samples" / "after-0.mp4").stat().st_size > 500
    committed = json.loads((finished / "checkpoints" / "COMMITTED").read_text())
    assert committed == {"step": 4, "folder": "step-00000004"}
    for role in ("image", "video"):
        folder = finished / "checkpoints" / "step-00000004" / role
        assert json.loads((folder / "weights" / "config.json").read_text())["_class_name"]
        tiny = {"image": "sd3/transformer", "video": "opensora/transformer_i2v"}[role]
        original = load_file(ROOT / "models" / "tiny" / tiny / "diffusion_pytorch_model.safetensors")
        trained = load_file(folder / WEIGHTS)
        assert {n: t.shape for n, t in trained.items()} == {n: t.shape for n, t in original.items()}
        assert any(not torch.equal(trained[name], original[name]) for name in original)
        assert set(load_file(folder / "ema" / "diffusion_pytorch_model.safetensors")) == set(original)


def test_an_interrupted_and_resumed_job_equals_an_uninterrupted_one_byte_for_byte(
    finished: Path, tmp_path: Path
) -> None:
    changes = [*QUICK, "training.num_steps=4", "training.checkpoint_every=2"]
    job = MoraTrain(tmp_path / "run", changes)
    job.read_until(lambda line: line.startswith("step 1/4"))
    second = MoraTrain(tmp_path / "run", changes)  # while the first one works
    job.process.send_signal(signal.SIGINT)
    code, said = job.finish()
    assert code == 130, said
    assert "--resume continues from there" in said
    assert job.nothing_left()
    code, said = second.finish()
    assert code == 1
    assert "already holds a run" in said
    assert len(losses(tmp_path / "run")) < 4
    train(tmp_path / "run", changes, "--resume")
    assert losses(tmp_path / "run") == losses(finished)
    resumed, uninterrupted = state_files(tmp_path / "run", 4), state_files(finished, 4)
    assert set(resumed) == set(uninterrupted)
    for name, content in uninterrupted.items():
        assert resumed[name] == content, name


@pytest.mark.long  # of toys: tests/integration/chain/test_jobs_of_chains.py
def test_two_replicas_with_one_sample_each_equal_one_replica_with_two(tmp_path: Path) -> None:
    rates = ["agents.image.learning_rate=1e-5", "agents.video.learning_rate=1e-5"]
    train(tmp_path / "two", [*QUICK, *rates, "replicas=2"])
    train(tmp_path / "one", [*QUICK, *rates, "training.micro_batch_size=2"])
    for name in (f"image/{WEIGHTS}", f"video/{WEIGHTS}", "coordinator/modulation.safetensors"):
        two, one = (load_file(tmp_path / n / "checkpoints" / "step-00000002" / name) for n in ("two", "one"))
        for parameter in one:
            assert (two[parameter] - one[parameter]).abs().max() <= 1e-6, parameter
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    logs = {path.stem: path.read_text() for path in (tmp_path / "two" / "logs").glob("*.jsonl")}
    loaded = sorted(role for role, text in logs.items() if re.search("loading (the )?text encoder", text))
    assert loaded == ["image.0.1", "video.0.1"], "the other replica reads what these have encoded"
    assert len(list((tmp_path / "two" / "cache" / "video" / "targets").glob("*.safetensors"))) > 1


def test_a_job_that_keeps_dying_is_given_up_with_the_cause(tmp_path: Path) -> None:
    job = MoraTrain(tmp_path / "run", [*ENDLESS, "restarts.max_num=1"], config=TOYS)
    for _ in range(2):
        job.read_until(lambda line: line.startswith("step 1/50000"))
        job.child("video.0").kill()
    code, said = job.finish()
    assert code == 1
    assert said.count("video.0 was killed by SIGKILL, while the job was running") == 2
    assert "every other process was ended; 1 of 1 restarts in 600 s are used up" in said
    assert job.nothing_left()
    code, said = mora("doctor", job.run)
    assert code == 1
    assert "failed: video.0 was killed by SIGKILL, while the job was running" in said
    assert "dmesg" in said, "what to do"
    assert "recovered: video.0 was killed by SIGKILL" in said


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> MoraTrain:
    """A job that is stopped from another terminal, with a video model that gives the image agent no gradient."""
    folder = tmp_path_factory.mktemp("stopped")
    job = MoraTrain(folder / "run", [*ENDLESS, f"agents.video.options.weights={deaf(folder)}"], config=TOYS)
    job.read_until(lambda line: line.startswith("step 1/50000"))
    assert mora("stop", job.run) == (0, f"{job.run}: stopped\n")
    job.finish()
    return job


def deaf(folder: Path) -> Path:
    """Weights of a video agent whose output does not depend on the given pictures."""
    model = ToyLast(LastOptions(seed=2), torch.device("cpu")).model
    with torch.no_grad():
        model.weight[:, : model.in_features - WIDTH].zero_()
    save_file(model.state_dict(), folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_run_is_stopped_from_another_terminal_with_a_checkpoint(stopped: MoraTrain) -> None:
    assert stopped.process.returncode == 130, stopped.lines
    assert (stopped.run / "checkpoints" / "COMMITTED").exists()
    assert mora("status", stopped.run)[1].startswith(f"{stopped.run}\ntrain: interrupted, generation 1")
    assert mora("stop", stopped.run) == (0, f"{stopped.run}: is not running\n")


def test_a_zero_gradient_to_the_image_agent_is_warned_about(stopped: MoraTrain) -> None:
    assert "the gradient of what `image` makes is exactly zero" in "\n".join(stopped.lines)


def test_the_death_of_the_launcher_ends_every_role(tmp_path: Path) -> None:
    job = MoraTrain(tmp_path / "run", ENDLESS, config=TOYS)
    job.read_until(lambda line: line.startswith("step 1/50000"))
    assert len(job.children()) == 3
    deadline = time.monotonic() + 30
    # the coordinator's first step can come before the launcher has written that the job runs
    while (shown := json.loads(mora("status", job.run, "--json")[1]))["state"] == "starting":
        assert time.monotonic() < deadline, shown
    assert (shown["state"], shown["launcher_pid"]) == ("running", job.process.pid)
    assert {role["role"]: role["pid"] for role in shown["roles"]} == {
        name: job.child(name).pid for name in ("image.0", "video.0", "coordinator.0")
    }
    job.process.kill()
    assert job.nothing_left()
    assert job.finish()[0] == -signal.SIGKILL
    assert json.loads(mora("status", job.run, "--json")[1])["state"] == "killed"
    code, said = mora("doctor", job.run)
    assert code == 1
    assert f"its launcher (process {job.process.pid}) was killed while running, with image.0, video.0" in said
    assert f"./mora train --resume --run {job.run} continues from the committed checkpoint" in " ".join(said.split())


def test_an_agent_that_dies_while_loading_is_reported_and_leaves_no_process(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    job = MoraTrain(tmp_path / "run", [*QUICK, f"agents.image.options.weights={broken}"], config=TOYS)
    code, said = job.finish()
    assert code == 1
    assert "image.0 could not load its agents" in said
    assert f"{broken}/diffusion_pytorch_model.safetensors" in said.replace("\n", "")
    assert job.nothing_left()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["agents.image.options.heigth=64"], "agents.image.options.*heigth: unknown key; did you mean `height`"),
        (["agents.video.options.num_frames=10"], "9 would do"),
        (["agents.image.options.model=models/absent"], "no such folder or known Hub id"),
        (["agents.image.kind=sd4"], "unknown kind of agent `sd4`; did you mean `sd3`"),
        (["agents.image.devices=[cuda:9]"], "image.0 is placed on cuda:9, but this machine has"),
        (["data=/nowhere/clip.mkv"], "no such file /nowhere/clip.mkv"),
    ],
)
def test_an_invalid_configuration_is_refused_before_anything_starts(
    changes: list[str], words: str, tmp_path: Path
) -> None:
    settings = [word for change in changes for word in ("--set", change)]
    refused = CliRunner().invoke(cli, ["train", str(TINY), "--run", str(tmp_path / "run"), *settings])
    assert isinstance(refused.exception, MoraError), refused.output
    assert re.search(words, str(refused.exception), flags=re.DOTALL), refused.exception
    assert list(tmp_path.glob("run/logs/*")) == [], "no role has been started"
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_dry_run_prints_the_plan_and_starts_nothing(tmp_path: Path) -> None:
    words = ["train", str(TINY), "--run", str(tmp_path / "run"), "--dry-run", "--json", str(tmp_path / "plan.json")]
    planned = CliRunner().invoke(cli, [*words, "--set", "replicas=2"])
    assert planned.exit_code == 0, planned.output
    for role in ("image.1", "video.0", "coordinator.1", "largest phase", "host memory"):
        assert role in planned.output
    assert not (tmp_path / "run").exists()
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["devices"]["cpu"]["peak_bytes"] == sum(plan["devices"]["cpu"]["parts"].values())
    assert plan["devices"]["cpu"]["parts"]["graphs"] > 1 << 20, "the environments told what their agents cost"
    assert plan["step_s"] is None, "no time is planned on the CPU"


def test_a_plan_is_written_only_with_a_dry_run(tmp_path: Path) -> None:
    refused = CliRunner().invoke(cli, ["train", str(TINY), "--json", str(tmp_path / "plan.json")])
    assert refused.exit_code == 2
    assert "give it too" in refused.output
