"""`mora bench learn`: does joint fine-tuning make the chain follow prompts that it never saw?

Tiny models that draw moving shapes (`configs/shapes.yaml`, pre-trained on first use) sometimes follow their prompts.
They are trained jointly on 48 combinations of colour, form, direction and speed with true prompts. Measured on the 16
other combinations, which training never shows: the denoising loss of the clip given the prompt and the image agent's
picture for it, and how often the generated clip has the prompt's colour, starting place, direction and speed. These
are read from the pixels, without a judge.

The image agent learns only from the gradient of the video agent's loss with respect to its picture.
All variants of a seed begin with the same weights and see the same samples and noise in the same order. Intervals are
95 % of Student's t over the seeds, which determine order, training noise and generation noise.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from mora_launch.config.train_config import load_config
from mora_launch.environments.venvs import ROOT
from mora_runtime.process.supervisor_link import die_with_parent

from benchmarks.figures import add_json_option, save
from benchmarks.learn.data import write_dataset
from benchmarks.learn.report import Pairs, figures, table
from benchmarks.learn.scope import measure_scope
from benchmarks.learn.variants import VARIANTS


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="mora bench learn", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "shapes.yaml")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--variant", dest="names", action="append", choices=list(VARIANTS), help="default: all")
    add_json_option(parser)
    arguments = parser.parse_args()
    names = list(dict.fromkeys(["learned", *(arguments.names or VARIANTS)]))
    pairs: Pairs = {}
    with (
        tempfile.TemporaryDirectory(prefix="mora-learn-") as temporary,
        ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), initializer=die_with_parent, max_tasks_per_child=1
        ) as processes,
    ):
        folder = Path(temporary)
        dataset = write_dataset(folder / "clips", load_config(arguments.config, arguments.changes).clip)
        for scope in dict.fromkeys(VARIANTS[name].scope for name in names):
            changes = [f"data.path={dataset}", "samples.enabled=false", *arguments.changes, f"scope={scope}"]
            config = load_config(arguments.config, changes)
            chosen = [name for name in names if VARIANTS[name].scope == scope]
            plan = (chosen, arguments.seeds, arguments.steps)
            pairs |= processes.submit(measure_scope, config, folder / scope, *plan).result()
    compared = figures(pairs)
    print(f"\nheld-out prompts over {arguments.seeds} seeds, {arguments.steps} steps, mean [95 % interval]")
    print("\n".join(table(compared)))
    save(compared, arguments.json)


if __name__ == "__main__":
    main()
