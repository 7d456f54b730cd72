"""How reliably the offline judge prefers a clip to a broken version of it.

Clean clips are cut from a film (`--film`), made by Mora (moving shapes), and taken from a folder of generated videos
(`--generated`, for example the rounds of a run). Each is broken in four ways and judged together with the clean one,
both as the H.264 files that rounds write. A case counts if the judge ranks the clean one first. Run it as
`mora bench judges`.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from mora_data.clips import duration_s, read_clip
from mora_data.moving_shapes import made_clip
from mora_data.reading.fitting import Clip
from mora_data.settings import ClipShape
from mora_data.video_writer import write_video
from mora_launch.rounds.judging.criteria import CRITERIA
from mora_launch.rounds.judging.judge import ask
from mora_launch.rounds.judging.measured_judge import MeasuredJudge
from mora_trainer.candidate_settings import VIDEO_FILE
from PIL import Image, ImageFilter

from benchmarks.figures import add_json_option, save

CORRUPTIONS = ("noise", "blur", "frozen", "shuffled")
_SHAPES = tuple(
    ClipShape(num_frames=frames, height=height, width=width, fps=fps)
    for frames, height, width, fps in ((9, 64, 64, 8.0), (17, 96, 128, 12.0), (13, 144, 176, 24.0))
)


def corrupted(clip: Clip, kind: str, draw: random.Random) -> Clip:
    """The clip broken in one way; the strength is drawn from the range below."""
    if kind == "noise":  # standard deviation of 6 to 30 grey levels
        noise = np.random.default_rng(draw.getrandbits(32)).normal(0.0, draw.uniform(6, 30), clip.shape)
        return (clip + noise).round().clip(0, 255).astype(np.uint8)
    if kind == "blur":  # Gaussian of 1 to 3 pixels
        radius = ImageFilter.GaussianBlur(draw.uniform(1.0, 3.0))
        return np.stack([np.asarray(Image.fromarray(frame).filter(radius)) for frame in clip])
    if kind == "frozen":  # nothing changes after some frame in the first half
        start = draw.randrange(0, len(clip) // 2)
        return np.concatenate([clip[: start + 1], np.repeat(clip[start : start + 1], len(clip) - start - 1, axis=0)])
    order = list(range(len(clip)))
    while sum(abs(a - b) == 1 for a, b in pairwise(order)) > len(clip) // 3:
        draw.shuffle(order)
    return clip[order]


def clean_clips(film: Path | None, generated: Path | None, number: int, seed: int) -> Iterator[tuple[str, Clip]]:
    """Yield clips from each source in turn, with the source's name."""
    draw = random.Random(seed)
    videos = sorted(generated.rglob(VIDEO_FILE)) if generated is not None else []
    sources = [name for name, there in (("film", film), ("generated", videos), ("made", True)) if there]
    for index in range(number):
        source, shape = sources[index % len(sources)], draw.choice(_SHAPES)
        if source == "film":
            assert film is not None
            last_s = duration_s(film) - shape.num_frames / shape.fps - 0.3
            yield source, read_clip(film, shape, start_s=draw.uniform(0, last_s), fps=shape.fps)
        elif source == "generated":
            yield source, read_clip(draw.choice(videos), _SHAPES[0])
        else:
            yield source, made_clip(draw.randrange(1000), shape)[1]


def written(clip: Clip, folder: Path) -> Clip:
    """The clip after it was written as a video and read back."""
    path = folder / "clip.mp4"
    frames, height, width = clip.shape[:3]
    write_video(path, clip, 8.0)
    return read_clip(path, ClipShape(num_frames=frames, height=height, width=width))


def measure_judges(film: Path | None, generated: Path | None, number: int, seed: int) -> dict[str, object]:
    """Share of cases in which the judge prefers the clean clip, by judge, corruption and source."""
    judges = [MeasuredJudge("even"), MeasuredJudge("picture"), MeasuredJudge("motion")]
    criteria = [name for name, criterion in CRITERIA.items() if all(judge.can_judge(criterion) for judge in judges)]
    wins: dict[tuple[str, str, str], list[bool]] = {}
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index, (source, clip) in enumerate(clean_clips(film, generated, number, seed)):
            clean = written(clip, folder)
            for kind in CORRUPTIONS:
                broken = written(corrupted(clip, kind, draw), folder)
                criterion = draw.choice(criteria)
                for judge in judges:
                    verdict = ask(
                        judge, prompt="", criterion_name=criterion, criterion=CRITERIA[criterion],
                        clips=[clean, broken], seed=f"{seed}/{index}/{kind}",
                    )  # fmt: skip
                    wins.setdefault((judge.name, kind, source), []).append(verdict.best == 0)
    return {
        judge.name: {
            kind: {
                "cases": sum(len(won) for (j, k, _), won in wins.items() if (j, k) == (judge.name, kind)),
                "clean_preferred": _share([w for (j, k, _), w in wins.items() if (j, k) == (judge.name, kind)]),
                "by_source": {s: _share([w]) for (j, k, s), w in wins.items() if (j, k) == (judge.name, kind)},
            }
            for kind in CORRUPTIONS
        }
        for judge in judges
    }


def _share(groups: list[list[bool]]) -> float:
    flat = [won for group in groups for won in group]
    return round(sum(flat) / len(flat), 4)


def main() -> None:
    parser = argparse.ArgumentParser(prog="mora bench judges", description=__doc__)
    parser.add_argument("--film", type=Path, help="a video to cut clean clips from")
    parser.add_argument("--generated", type=Path, help="a folder with candidates of a run")
    parser.add_argument("--cases", type=int, default=400, help="number of cases for each corruption")
    parser.add_argument("--seed", type=int, default=0)
    add_json_option(parser)
    arguments = parser.parse_args()
    found = measure_judges(arguments.film, arguments.generated, arguments.cases, arguments.seed)
    print(f"{'judge':18s}{'broken by':12s}{'cases':>6s}{'clean first':>13s}  by source")
    for judge, by_kind in found.items():
        assert isinstance(by_kind, dict)
        for kind, figures in by_kind.items():
            sources = "  ".join(f"{name} {share:.3f}" for name, share in figures["by_source"].items())
            print(f"{judge:18s}{kind:12s}{figures['cases']:6d}{figures['clean_preferred']:13.3f}  {sources}")
    save(found, arguments.json)


if __name__ == "__main__":
    main()
