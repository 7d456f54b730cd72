"""A job that does not fit the machine's GPUs or disk is refused before anything starts. No test here needs a GPU."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mora_environment.component import Component
from mora_environment.interface import Interface
from mora_launch.config.train_config import TrainConfig, load_config
from mora_launch.environments.agent_options import CheckedOptions
from mora_launch.environments.interpreter import Interpreter
from mora_launch.environments.venvs import ROOT
from mora_launch.jobs import placement
from mora_launch.jobs.cuda_driver import CudaDriver, Gpu
from mora_launch.jobs.placement import PlacedRole, check_devices, place
from mora_launch.planning import disk_room
from mora_launch.planning.disk_room import check_disk, checkpoint_nbytes
from mora_runtime.errors import ConfigurationError, PlacementError
from mora_runtime.wire.messages import PROTOCOL_VERSION


def machine(monkeypatch: pytest.MonkeyPatch, *, num_gpus: int, version: int = 13000) -> None:
    """Let the driver tell of so many GPUs."""
    gpus = tuple(Gpu("a GPU", 80 << 30, f"0000:0{number}:00.0") for number in range(num_gpus))
    monkeypatch.setattr(placement, "ask_driver", lambda: CudaDriver(version, gpus))


def role(name: str, device: str, *, python: Path | None = None, has_group: bool = True) -> PlacedRole:
    return PlacedRole(name, device, "sd3", 0, "any", python, has_group)  # type: ignore[arg-type]


def options_of(*components: Component) -> CheckedOptions:
    """The answer of an environment for an agent that trains."""
    return CheckedOptions(
        protocol=PROTOCOL_VERSION, options={}, components=components, interface=Interface(), weights="model",
        weights_folder=None,
    )  # fmt: skip


def test_gpus_that_the_driver_shows_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, num_gpus=2)
    check_devices([role("image.0", "cuda:0"), role("video.0", "cuda:1"), role("coordinator.0", "cpu")])


def test_a_gpu_that_the_driver_does_not_show_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, num_gpus=1)
    with pytest.raises(PlacementError, match=r"video\.0 is placed on cuda:1, but this machine has 1 CUDA device\(s\)"):
        check_devices([role("image.0", "cuda:0"), role("video.0", "cuda:1")])


def test_the_environments_torch_must_fit_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, num_gpus=1, version=12040)
    python = Path(sys.executable)
    monkeypatch.setattr(placement, "ask_interpreter", _old_driver_for)
    with pytest.raises(PlacementError, match=r"image\.0 .* supports at most CUDA 12\.4: install a newer driver"):
        check_devices([role("image.0", "cuda:0", python=python)])


def _old_driver_for(python: Path) -> Interpreter:
    distributions = {"torch": "2.13.0", "nvidia-cuda-runtime": "13.0.96"}
    return Interpreter(version="3.11.9", prefix="/venv", distributions=distributions)


def test_no_driver_is_asked_where_all_roles_are_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(placement, "ask_driver")
    check_devices([role("image.0", "cpu"), role("image.1", "cpu")])


def test_two_replicas_of_one_trained_agent_on_one_gpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, num_gpus=8)
    with pytest.raises(PlacementError, match=r"^image\.0 and image\.1 are both placed on cuda:0, .*agents\.image"):
        check_devices([role("image.0", "cuda:0"), role("video.0", "cuda:0"), role("image.1", "cuda:0")])


def test_agents_share_a_gpu_and_so_do_replicas_that_exchange_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, num_gpus=1)
    check_devices([role("image.0", "cuda:0"), role("video.0", "cuda:0")])
    check_devices([role("critic.0", "cuda:0", has_group=False), role("critic.1", "cuda:0", has_group=False)])
    check_devices([role("image.0", "cuda:0"), role("image.1", "cuda:0")], trains=False)


def test_a_job_whose_replicas_would_share_a_gpu_is_refused_as_it_is_configured() -> None:
    config = load_config(ROOT / "configs" / "tiny.yaml", ["replicas=2", "agents.image.devices=[cuda:0]"])
    roles = place(config, dict.fromkeys(config.agents, options_of()))
    with pytest.raises(PlacementError, match=r"^image\.0 and image\.1 are both placed on cuda:0"):
        check_devices(roles)


def published(*changes: str) -> tuple[TrainConfig, dict[str, CheckedOptions]]:
    """The paper's job, with the numbers of parameters of the published models."""
    config = load_config(ROOT / "configs" / "mora-osp-8xh100.yaml", list(changes))
    image = Component(name="transformer", num_parameters=2_028_328_000, dtype_nbytes=2, trainable=True)
    video = Component(name="transformer", num_parameters=2_782_603_024, dtype_nbytes=2, trainable=True)
    encoder = Component(name="text encoder", num_parameters=4_762_310_656, dtype_nbytes=2, trainable=False)
    return config, {"image": options_of(image, encoder), "video": options_of(video, encoder)}


def disk(monkeypatch: pytest.MonkeyPatch, *, free_nbytes: int) -> None:
    monkeypatch.setattr(disk_room.shutil, "disk_usage", lambda path: SimpleNamespace(free=free_nbytes))


def test_a_checkpoint_of_the_published_models_has_22_bytes_a_parameter() -> None:
    config, checked = published()
    nbytes = sum(checkpoint_nbytes(config.agents[name], checked[name]) for name in ("image", "video"))
    assert nbytes == 22 * (2_028_328_000 + 2_782_603_024)


@pytest.mark.parametrize(
    ("changes", "needed_gb"),
    [
        (["training.num_steps=100"], 4 * 105.84),
        (["training.num_steps=12"], 3 * 105.84),
        (["training.checkpoint_every=0"], 105.84),
        (["training.num_steps=100", "training.keep_checkpoints=1"], 2 * 105.84),
    ],
)
def test_a_disk_without_room_for_all_checkpoints_is_refused(
    changes: list[str], needed_gb: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, free_nbytes=int((needed_gb + 0.1) * 1e9))
    check_disk(*published(*changes), tmp_path / "runs" / "new")
    disk(monkeypatch, free_nbytes=int((needed_gb - 0.1) * 1e9))
    with pytest.raises(ConfigurationError, match="free disk space"):
        check_disk(*published(*changes), tmp_path / "runs" / "new")


def test_the_room_of_checkpoints_that_are_there_already_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, free_nbytes=int(4 * 105.84e9))
    (tmp_path / "checkpoints" / "step-00000004").mkdir(parents=True)
    with (tmp_path / "checkpoints" / "step-00000004" / "weights").open("wb") as file:
        file.truncate(1 << 30)
    check_disk(*published("training.num_steps=100"), tmp_path)
    (tmp_path / "checkpoints" / "step-00000004.kept").touch()  # the job does not remove a kept one
    with pytest.raises(ConfigurationError, match="the disk has"):
        check_disk(*published("training.num_steps=100"), tmp_path)
