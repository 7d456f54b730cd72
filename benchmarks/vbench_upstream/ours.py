"""One dimension by an agent of `env_vbench`: `python -m benchmarks.vbench_upstream.ours FOLDER DIMENSION`.

The agent is the one that a server serves, without the server. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy
import torch
from mora_data.clips import open_video
from mora_env_vbench.__main__ import KINDS
from mora_env_vbench.goldens.formula_cases import weighted_mean
from mora_environment.kind import imported

from benchmarks.vbench_upstream.upstream import CACHE, STYLE, STYLES, VIDEOS, peak_mb

KIND_OF = {
    "subject_consistency": "dino",
    "background_consistency": "clip",
    "motion_smoothness": "amt",
    "dynamic_degree": "raft",
    "aesthetic_quality": "aesthetic",
    "imaging_quality": "musiq",
    "temporal_style": "viclip",
    "appearance_style": "clip",
}


def main() -> None:
    """Measure, and print scores, times and memory."""
    folder, dimension = Path(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    entries = json.loads((folder / STYLES).read_text())
    words = {entry["prompt_en"]: entry["auxiliary_info"][STYLE][STYLE] for entry in entries}
    kind = KIND_OF[dimension]
    options = KINDS[kind].options.model_validate({"weights": str(folder / CACHE)})
    agent = imported(KINDS[kind].build, owner=kind)(options, torch.device("cpu"))
    started_s, processor_s = time.perf_counter(), time.process_time()
    results = {path.name: _measured(agent, dimension, path, words) for path in sorted((folder / VIDEOS).iterdir())}
    times = {"wall_s": time.perf_counter() - started_s, "processor_s": time.process_time() - processor_s}
    told = {
        "overall": weighted_mean(list(results.values())),
        "videos": {name: results[name]["score"] for name in results},
    }
    print(json.dumps({**told, **times, "peak_mb": peak_mb()}))


def _measured(agent: Any, dimension: str, path: Path, words: dict[str, str]) -> dict[str, Any]:
    prompt = path.stem.rpartition("-")[0]
    with open_video(path) as video:
        frames = torch.from_numpy(numpy.stack([frame.pixels() for frame in video.frames()]))
        rate = video.rate
    result: dict[str, Any] = agent.measure(
        dimension=dimension, frames=frames, fps=rate, prompt=prompt, words=words[prompt]
    )
    return result


if __name__ == "__main__":
    main()
