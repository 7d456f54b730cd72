"""One dimension by VBench's own code: `python upstream.py FOLDER DIMENSION`, in an environment that has VBench.

It imports nothing of Mora, because that environment has nothing of it. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

CACHE, HUB, VIDEOS, STYLES = "cache", "torch", "videos", "styles.json"  # in FOLDER
STYLE = "appearance_style"  # VBench refuses it in its mode for videos of users
DIMENSIONS = (
    "subject_consistency",
    "background_consistency",
    "motion_smoothness",
    "dynamic_degree",
    "aesthetic_quality",
    "imaging_quality",
    "temporal_style",
    "appearance_style",
)
_LOOPS = {"aesthetic_quality": "laion_aesthetic", "imaging_quality": "technical_quality"}  # others: as the dimension


def peak_mb() -> float:
    """Most resident memory that this process had, since it runs this interpreter."""
    line = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert line is not None, "expected VmHWM in /proc/self/status"
    return int(line[1]) * 1024 / 1e6


def main() -> None:
    """Measure, and print scores, times and memory."""
    folder, dimension = Path(sys.argv[1]).absolute(), sys.argv[2]
    os.environ |= {"VBENCH_CACHE_DIR": str(folder / CACHE), "TORCH_HOME": str(folder / HUB)}
    import torch

    torch.set_num_threads(1)
    library = torch.library.Library("torchvision", "DEF")  # what it defines ends with it
    _define_operators(library)
    times = _time_loop(dimension)
    overall, videos = _evaluate(folder, dimension)
    scores = {Path(video["video_path"]).name: float(video["video_results"]) for video in videos}
    print(json.dumps({"overall": float(overall), "videos": scores, **times, "peak_mb": peak_mb()}))


def _define_operators(library: Any) -> None:
    """torchvision of PyPI next to a CPU torch lacks these, and does not import without; no metric calls them."""
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def _time_loop(dimension: str) -> dict[str, float]:
    """Times of VBench's loop over videos, without loading; they are there when the loop has ended."""
    module = import_module(f"vbench.{dimension}")
    name, times = _LOOPS.get(dimension, dimension), {}
    loop = getattr(module, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        started_s, processor_s = time.perf_counter(), time.process_time()
        result = loop(*args, **kwargs)
        times.update(wall_s=time.perf_counter() - started_s, processor_s=time.process_time() - processor_s)
        return result

    setattr(module, name, timed)
    return times


def _evaluate(folder: Path, dimension: str) -> Any:
    from vbench import VBench

    results = folder / "upstream"
    mode = "vbench_standard" if dimension == STYLE else "custom_input"
    benchmark = VBench("cpu", str(folder / STYLES), str(results))
    benchmark.evaluate(str(folder / VIDEOS), dimension, dimension_list=[dimension], local=True, mode=mode)
    return json.loads((results / f"{dimension}_eval_results.json").read_text())[dimension]


if __name__ == "__main__":
    main()
