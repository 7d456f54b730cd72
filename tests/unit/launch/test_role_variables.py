"""The variables of a role say which device its libraries use, whatever the user's shell says."""

import pytest
from mora_launch.jobs.servers import child_variables


@pytest.mark.parametrize(("device", "accelerator"), [("cpu", "cpu"), ("cuda:0", "cuda"), ("cuda:11", "cuda")])
def test_deepspeed_uses_the_device_of_the_role(device: str, accelerator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu" if accelerator == "cuda" else "cuda")
    assert child_variables(1, device)["DS_ACCELERATOR"] == accelerator


def test_sums_on_the_cpu_do_not_depend_on_the_place_of_weights_in_memory() -> None:
    assert child_variables(1, "cpu")["MKL_CBWR"] == "AUTO,STRICT"
    assert "MKL_CBWR" not in child_variables(1, "cuda:0")


def test_gpus_are_numbered_by_their_place_on_the_bus_and_their_memory_grows_in_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    variables = child_variables(1, "cuda:0")
    assert variables["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert variables["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert not {"CUDA_DEVICE_ORDER", "PYTORCH_ALLOC_CONF"} & set(child_variables(1, "cpu"))


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_settings_of_the_allocator_in_the_shell_stay(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "max_split_size_mb:128")
    assert "PYTORCH_ALLOC_CONF" not in child_variables(1, "cuda:0")


def test_roles_do_not_download_unless_the_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert child_variables(1, "cpu")["HF_HUB_OFFLINE"] == "1"
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert "HF_HUB_OFFLINE" not in child_variables(1, "cpu")
