"""tests/gpu, which need a device with CUDA and are skipped elsewhere."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree

from benchmarks.device_check.figures import Figures
from benchmarks.device_check.outcome import CheckFailed, Skipped
from benchmarks.device_check.request import Request
from benchmarks.device_check.source_folders import ROOT

_NUM_NAMED = 5


def run(request: Request, figures: Figures) -> None:
    """Run the tests and read pytest's report."""
    report = request.path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", "tests/gpu"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, cwd=ROOT, check=False)
    if not report.exists():
        raise CheckFailed(f"pytest ended with {done.returncode} and no report")
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    failed = [each for each in cases if each.find("failure") is not None or each.find("error") is not None]
    reasons = {each.attrib.get("message", "") for case in cases for each in case.iter("skipped")}
    num_skipped = sum(case.find("skipped") is not None for case in cases)
    figures.add(num_passed=len(cases) - len(failed) - num_skipped, num_failed=len(failed), num_skipped=num_skipped)
    figures.add(skipped_because=sorted(reasons))
    if failed or done.returncode != 0:
        named = ", ".join(str(case.attrib["name"]) for case in failed[:_NUM_NAMED])
        raise CheckFailed(f"pytest ended with {done.returncode}; {len(failed)} of {len(cases)} tests failed: {named}")
    if num_skipped == len(cases):
        raise Skipped(f"every test was skipped: {'; '.join(sorted(reasons))}")
