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
