"""`mora bench rounds`: rounds killed at random moments and resumed, compared with undisturbed rounds.

Every manifest, dataset, decision, verdict and candidate, and each tensor of the last checkpoint, must be bit-identical.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import tempfile
import time
from pathlib import Path

from mora_launch.environments.venvs import ROOT

from benchmarks.figures import add_json_option, publish

SMALL = (
    "synthesis.num_rounds=2",
    "synthesis.prompts_per_round=2",
    "synthesis.num_candidates=2",
    "synthesis.num_evaluation_prompts=1",
    "training.num_steps=2",
    "training.checkpoint_every=1",
    "training.batch_size=2",
    "training.micro_batch_size=1",
)
CONFIG = "configs/tiny-rounds.yaml"
_KEPT = ("*.json", "*.jsonl", "*.mkv", "*.png", "*.safetensors")
_DEADLINE_S = 600.0


def command(run: Path, *options: str, config: str = CONFIG) -> list[str]:
    """The command line of small rounds of a configuration."""
    settings = [word for change in SMALL for word in ("--set", change)]
    return [str(ROOT / "mora"), "synthesize", config, "--run", str(run), *settings, *options]


def fingerprint(run: Path) -> dict[str, str]:
    """SHA-256 of every file that rounds leave, by path; the checkpoint's manifest included."""
    files = [path for kind in _KEPT for path in (run / "rounds").rglob(kind)]
    files += [path for kind in _KEPT for path in (run / "evaluation").rglob(kind)]
    record = json.loads((run / "checkpoints" / "COMMITTED").read_text(encoding="utf-8"))
    files += [path for path in (run / "checkpoints" / record["folder"]).rglob("*.safetensors")]
    return {str(path.relative_to(run)): _sha256(path, run) for path in sorted(files)}


def _sha256(path: Path, run: Path) -> str:
    content = path.read_bytes()
    if path.suffix in (".json", ".jsonl"):
        content = content.replace(str(run).encode(), b"RUN")
    return hashlib.sha256(content).hexdigest()


def left_alone(run: Path, *options: str, config: str = CONFIG) -> float:
    """Run to the end; returns the seconds it took."""
    started_s = time.monotonic()
    words = command(run, *options, config=config)
    subprocess.run(words, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, timeout=_DEADLINE_S)
    return time.monotonic() - started_s


def interrupted(
    run: Path, num_kills: int, whole_s: float, draw: random.Random, *options: str, config: str = CONFIG
) -> list[float]:
    """Kill (SIGKILL) and start again until done; returns the seconds after which each attempt was killed."""
    moments: list[float] = []
    while True:
        resume = ("--resume",) if (run / "config.json").exists() else ()
        process = subprocess.Popen(
            command(run, *options, *resume, config=config),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
        # on average long enough that all attempts together reach the end of the work
        moment_s = draw.uniform(2.0, 2.5 * whole_s / max(1, num_kills)) if len(moments) < num_kills else _DEADLINE_S
        try:
            code = process.wait(moment_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(30)
            moments.append(round(moment_s, 1))
            continue
        if code != 0:
            raise RuntimeError(f"rounds ended with {code} after {len(moments)} interruptions; see {run}")
        return moments


def main() -> None:
    parser = argparse.ArgumentParser(prog="mora bench rounds", description=__doc__)
    parser.add_argument("--interruptions", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    add_json_option(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        whole_s = left_alone(Path(name) / "whole")
        print(f"undisturbed: {whole_s:.0f} s", flush=True)
        run = Path(name) / "interrupted"
        moments = interrupted(run, arguments.interruptions, whole_s, random.Random(arguments.seed))
        expected, found = fingerprint(Path(name) / "whole"), fingerprint(run)
    differing = sorted(path for path in {*expected, *found} if expected.get(path) != found.get(path))
    result = {
        "interruptions_after_s": moments,
        "whole_s": round(whole_s, 1),
        "files_compared": len(expected),
        "files_that_differ": differing,
    }
    publish(result, arguments.json)
    raise SystemExit(1 if differing else 0)


if __name__ == "__main__":
    main()
