"""The check of a GPU node: every part runs on the CPU, and a failure, a deadline or a process that is left is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from mora_launch.config.train_config import load_config
from mora_launch.environments.venvs import CONTROL, ROOT

from benchmarks.device_check import interpreters, runner
from benchmarks.device_check.chain import write_tiny_chain
from benchmarks.device_check.collect import CannotCollect, check_size, collect, listed
from benchmarks.device_check.interpreters import find_interpreters
from benchmarks.device_check.outcome import Outcome
from benchmarks.device_check.plan import PARTS, TOTAL_S, Part
from benchmarks.device_check.report import add_assumed_rates, part_line, rate_lines
from benchmarks.device_check.request import Request
from benchmarks.device_check.runner import Runner

GIVE_UP_S = 400.0


@pytest.mark.timeout(GIVE_UP_S + 20)
def test_a_dry_check_runs_every_part_on_the_cpu(tmp_path: Path) -> None:
    file = tmp_path / "check.json"
    command = [sys.executable, "-m", "benchmarks.device_check", "--dry", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=GIVE_UP_S, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads(file.read_text())["parts"]
    assert list(parts) == [part.name for part in PARTS]
    skipped = {name: entry["reason"] for name, entry in parts.items() if entry["status"] == "skipped"}
    assert set(skipped) == {"gpu_tests", "ipc"}, done.stdout
    assert all("CUDA device" in reason for reason in skipped.values())
    assert all(entry["status"] == "ok" for name, entry in parts.items() if name not in skipped)
    _check_figures({name: entry["figures"] for name, entry in parts.items()})
    assert "planned" in done.stdout
    assert "assumed (H100)" in done.stdout


def _check_figures(figures: dict[str, Any]) -> None:
    assert figures["recovery"]["deaths"] == ["video.0:mid_backward:1300"]
    assert len(figures["recovery"]["losses"]) == 6, "four steps, and two more by --resume"
    assert figures["parity"]["bit_identical"]
    for name in ("published_video", "published_image"):
        assert 0.9 < figures[name]["memory_share_of_plan"] < 1.1
        assert figures[name]["stages_s"]["backward"] > 0
    assert set(figures["rates"]["rates"]) <= set(figures["rates"]["assumed_rates"])


@pytest.fixture
def run_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run a module, given as its source, as a part."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(tmp_path)]))

    def run(source: str, *, deadline_s: float = 60.0, total_s: float = TOTAL_S) -> Outcome:
        # `part_process` imports parts by name; the module comes from this path, as a part of the package does
        folder = tmp_path / "extra"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(
            "import sys, types\n"
            "part = types.ModuleType('benchmarks.device_check.parts.probe')\n"
            f"exec({source!r}, part.__dict__)\n"
            "sys.modules[part.__name__] = part\n"
        )
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT)]))
        part = Part("probe", "control", deadline_s, "nothing")
        monkeypatch.setattr(runner, "TOTAL_S", total_s)
        request = Request("probe", True, "cpu", str(tmp_path / "probe"), "", {}, {}, {})
        return Runner(tmp_path, 1.0).run(part, Path(sys.executable), request)

    return run


def test_a_part_that_works_gives_its_figures(run_module: Callable[..., Outcome]) -> None:
    outcome = run_module("def run(request, figures): figures.add(answer=42)")
    assert (outcome.status, outcome.figures, outcome.reason) == ("ok", {"answer": 42}, "")
    assert outcome.seconds > 0


def test_an_error_of_a_part_is_its_reason(run_module: Callable[..., Outcome]) -> None:
    outcome = run_module("def run(request, figures): figures.add(first=1); raise ValueError('no kernel')")
    assert (outcome.status, outcome.reason) == ("failed", "ValueError: no kernel")
    assert outcome.figures == {"first": 1}, "what was measured before the error"


def test_a_part_whose_process_dies_has_failed(run_module: Callable[..., Outcome]) -> None:
    outcome = run_module("def run(request, figures): import os; os.kill(os.getpid(), 9)")
    assert outcome.status == "failed"
    assert "ended with -9" in outcome.reason


def test_a_part_is_killed_at_its_deadline(run_module: Callable[..., Outcome]) -> None:
    source = "def run(request, figures):\n import signal\n figures.add(first=1)\n signal.pause()"
    outcome = run_module(source, deadline_s=6.0)
    assert outcome.status == "failed"
    assert "no end within 6 s" in outcome.reason
    assert outcome.figures == {"first": 1}


def test_a_process_that_a_part_leaves_is_killed_and_told(run_module: Callable[..., Outcome]) -> None:
    source = (
        "def run(request, figures):\n import subprocess\n"
        " child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n figures.add(child=child.pid)"
    )
    outcome = run_module(source)
    child = outcome.figures["child"]
    assert outcome.status == "failed"
    assert outcome.reason == f"processes were left: {child}"
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_parts_that_have_not_begun_at_the_total_deadline_are_skipped(run_module: Callable[..., Outcome]) -> None:
    outcome = run_module("def run(request, figures): figures.add(answer=42)", total_s=0.0)
    assert outcome.status == "skipped"
    assert "were over" in outcome.reason


def test_without_a_gpu_the_check_refuses(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.device_check", "--json", str(tmp_path / "check.json")]
    variables = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT, env=variables)
    assert done.returncode == 2
    assert "finds no CUDA device; give --dry" in done.stderr


def test_the_control_environment_uses_the_environments_of_the_checkout(tmp_path: Path) -> None:
    found = find_interpreters(tmp_path)
    assert not found.plays_all
    assert found.paths["image"] != found.paths["video"]
    assert not list(tmp_path.iterdir())


def test_another_python_plays_every_environment_and_makes_its_own_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreters.sys, "prefix", str(tmp_path))
    found = find_interpreters(tmp_path)
    assert found.plays_all
    config = load_config(write_tiny_chain(tmp_path / "tiny.yaml", found, "cuda:0"), [])
    assert {source.python for source in config.environments.values()} == {str(tmp_path / "python")}
    for agent in config.agents.values():
        assert agent.environment in config.environments
        assert agent.devices == ("cuda:0",)
        assert agent.options["dtype"] == "bfloat16"
        assert agent.tiny_models is not None
        assert agent.tiny_models.startswith(str(tmp_path / "models")), "the checkout's models are not replaced"
    program = "import sys, mora_env_sd3, mora_env_opensora, mora_launch, mora_trainer; print(sys.executable)"
    said = subprocess.run(
        [found.paths["control"], "-c", program], capture_output=True, text=True, check=True, timeout=60, cwd=tmp_path
    )
    assert said.stdout.strip() == sys.executable
    assert CONTROL.folder.is_dir()


def test_measured_rates_are_next_to_those_assumed_for_the_device() -> None:
    outcome = Outcome("ok", figures={"device": "NVIDIA H200", "rates": {"memory": 4.3e12, "launch_s": 5e-6}})
    add_assumed_rates(outcome)
    head, memory, launch = rate_lines(outcome.figures)
    assert "assumed (H200)" in head
    assert memory.split() == ["memory", "4.30", "3.70", "TB/s"]
    assert launch.split() == ["launch_s", "5.0", "8.0", "us"]


def test_a_reason_is_in_the_line_of_a_part() -> None:
    outcome = Outcome("ok")
    outcome.fail("no memory came back")
    outcome.fail("processes were left: 7")
    assert part_line(PARTS[0], outcome).endswith(": no memory came back; processes were left: 7")


def test_every_wheel_is_pinned() -> None:
    names = [line.partition("==")[0] for line in listed()]
    assert all(line.count("==") == 1 for line in listed())
    assert names == sorted(set(names))
    assert "deepspeed" in names


def test_wheels_that_are_too_large_with_the_repository_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "large.whl").open("wb") as file:
        file.truncate(64 << 20)
    with pytest.raises(CannotCollect, match="expected at most 67108864 bytes"):
        check_size(tmp_path)


def test_a_folder_with_other_wheels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old.whl").touch()
    with pytest.raises(CannotCollect, match="expected an empty folder"):
        collect(tmp_path, "3.12")
