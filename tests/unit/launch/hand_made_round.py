"""A round whose candidates are made clips, so that no model is needed."""

import json
from pathlib import Path

from mora_data.moving_shapes import made_clip
from mora_data.settings import ClipShape
from mora_data.video_writer import write_lossless, write_video
from mora_launch.rounds.store import Plan, PlannedSet, RoundFolder
from mora_runtime.files.durable_files import sha256_of


def make_round(run: Path, shape: ClipShape, num_sets: int = 2) -> Path:
    """Write plan and candidates of a first round, two candidates per set."""
    folder = RoundFolder(run, 1)
    sets = tuple(PlannedSet(made_clip(index, shape)[0], "flicker", (index, index + 9)) for index in range(num_sets))
    folder.write_plan(Plan(1, 0, 4, {"image": "0" * 64, "video": "0" * 64}, sets))
    for index, planned in enumerate(sets):
        for number, seed in enumerate(planned.seeds):
            target = folder.set(index).candidate(number)
            clip = made_clip(seed, shape)[1]
            write_lossless(target / "frames.mkv", clip, shape.fps)
            write_video(target / "video.mp4", clip, shape.fps)
            sha256 = {"frames.mkv": sha256_of(target / "frames.mkv")}
            record = {"seeds": {"image": seed, "video": seed}, "sha256": sha256}
            (target / "candidate.json").write_text(json.dumps(record))
    return run
