"""The benchmark of two jointly trained stages: its report, and that it notices different weights."""

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from mora_launch.environments.venvs import ROOT

from benchmarks.mlp.measurement import _difference
from benchmarks.mlp.report import LIMITS, PEER_TOLERANCE, weights_equal
from benchmarks.mlp.trainers import OURS


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Report of a short run, which must succeed."""
    path = tmp_path_factory.mktemp("mlp") / "mlp.json"
    command = [sys.executable, "-m", "benchmarks.mlp", "--width", "16", "--width", "256", "--rounds", "2"]
    subprocess.run([*command, "--json", str(path)], check=True, cwd=ROOT, timeout=200, stdout=subprocess.DEVNULL)
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@pytest.mark.long
def test_every_contestant_is_timed_and_ours_agree_with_one_process_to_the_bit(report: dict[str, Any]) -> None:
    assert report["weights_equal"] is True
    assert [size["width"] for size in report["sizes"]] == [16, 256]
    for size in report["sizes"]:
        for name in ("one_process", "dist_autograd", *OURS):
            assert size[f"{name}_ms"] > 0
        assert all(size["largest_weight_difference"][name] == 0.0 for name in OURS)
        assert size["largest_weight_difference"]["dist_autograd"] <= PEER_TOLERANCE
        for key in ("ratio", "ratio_fused", "ratio_inputs_first", "ratio_two_servers", "ratio_dist_autograd"):
            assert size[key] > 0


@pytest.mark.long
def test_the_report_has_each_target_with_the_measured_value(report: dict[str, Any]) -> None:
    small, middle = report["sizes"]
    assert "target" not in small
    key, limit = LIMITS[256]
    assert middle["target"] == {"key": key, "at_most": limit, "measured": middle[key], "met": middle[key] <= limit}


def test_one_different_bit_in_moras_weights_is_noticed() -> None:
    weights = {"first.0.weight": torch.ones(4, 4)}
    changed = {"first.0.weight": torch.ones(4, 4)}
    changed["first.0.weight"][2, 2] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    difference = _difference(changed, weights)
    assert not weights_equal({"ours": difference})
    assert weights_equal({"dist_autograd": difference})
    assert not weights_equal({"dist_autograd": _difference({}, weights)})
