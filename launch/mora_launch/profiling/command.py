"""`mora profile`: runs the job of `mora train` with tracing, and writes its files however the job ends."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path

from mora_runtime.errors import RunExists, TraceError
from mora_runtime.files.fresh_file import write_fresh

from mora_launch.config.restarts import RestartSettings
from mora_launch.config.train_config import TrainConfig
from mora_launch.jobs.resources import available_cores
from mora_launch.jobs.servers import TRACES
from mora_launch.jobs.training_job import train
from mora_launch.jobs.training_processes import TraceRequest
from mora_launch.profiling.advice import Measured, ranked_advice
from mora_launch.profiling.lane import Lane
from mora_launch.profiling.merged_trace import write_merged_trace
from mora_launch.profiling.message import matched_messages
from mora_launch.profiling.report.page import summary_page
from mora_launch.profiling.report.summary import summarise
from mora_launch.profiling.report.terminal import print_summary
from mora_launch.profiling.role_trace import RoleTrace, read_role_traces
from mora_launch.profiling.step_window import step_windows
from mora_launch.profiling.torch_ops import TorchOps, read_torch_ops
from mora_launch.profiling.trial import Trial, tried
from mora_launch.terminal import Console

RUN = "run"
TRACE = "trace.json.gz"
TRIED = "tried"


def profile(config: TrainConfig, output: Path, *, torch_profiler: bool, tries: bool, console: Console) -> int:
    """Run the job with every role traced and write trace and summary into `output`; the run itself is `output`/run.

    Args:
        torch_profiler: also record the last step with torch's profiler; its time does not count in the summary.
        tries: also run the job with and without the first advices, and report the times of a step.

    Returns:
        The exit code of `train`.

    Raises:
        RunExists: `output` already contains a profile.
        MoraError, KeyboardInterrupt: as `train`; the recorded part is written first.
    """
    run = output / RUN
    if os.path.lexists(run) or os.path.lexists(output / TRACE):
        raise RunExists(f"{output} already contains a profile; give another --output, or remove it")
    torch_step = config.training.num_steps - 1 if torch_profiler else None
    config = config.model_copy(update={"restarts": RestartSettings(max_num=0)})  # a restart would distort the profile
    trials: list[Trial] = []
    try:
        code = train(config, run=run, resume=False, console=console, trace=TraceRequest(torch_step))
        if tries and code == 0:
            trials = _trials(config, run, output, torch_step, console)
        return code
    finally:
        if (run / TRACES).is_dir():
            write_profile(run / TRACES, output, config, torch_step=torch_step, trials=trials, console=console)


def _trials(config: TrainConfig, run: Path, output: Path, torch_step: int | None, console: Console) -> list[Trial]:
    """Try the first advices of the profile in `run`; their runs go to `output`/tried."""
    measured = _measured(run / TRACES, config, torch_step)
    numbers = itertools.count(1)

    def step_seconds(changed: TrainConfig) -> list[float]:
        folder = output / TRIED / str(next(numbers))
        if train(changed, run=folder, resume=False, console=Console(quiet=True), trace=TraceRequest(None)) != 0:
            raise KeyboardInterrupt
        return [step.wall_s for step in _measured(folder / TRACES, changed, None).steps]

    advice = ranked_advice(measured)
    if any(each.setting is not None for each in advice):
        console.print(f"trying the first advice; the runs are in {output / TRIED}", markup=False)
    found = tried(config, advice, [step.wall_s for step in measured.steps], step_seconds)
    for trial in found:
        console.print(f"  {trial}", markup=False)
    return found


def _measured(folder: Path, config: TrainConfig, torch_step: int | None) -> Measured:
    """Read the steps that count from the roles' traces."""
    traces = read_role_traces(folder)
    lanes = [Lane(trace) for trace in traces]
    steps = [window for window in step_windows(lanes, torch_step) if not window.left_out]
    return Measured(config, traces, lanes, steps, sum(len(cores) for cores in available_cores()))


def write_profile(
    folder: Path, output: Path, config: TrainConfig, *, torch_step: int | None, trials: Sequence[Trial],
    console: Console,
) -> None:  # fmt: skip
    """Write trace, summary and page of the roles' traces in `folder`, and print the summary."""
    traces = read_role_traces(folder)
    num_cores = sum(len(cores) for cores in available_cores())
    ops = _torch_ops(folder, traces, console)
    write_merged_trace(output / TRACE, traces, ops)
    summary = summarise(traces, config, torch_step=torch_step, num_cores=num_cores, trials=trials)
    summary["torch"] = {
        each.role: {
            "num_ops": len(each.ops),
            "num_left_out": each.num_left_out,
            "alignment_error_ns": each.alignment_error_ns,
        }
        for each in ops
    }
    write_fresh(output / "summary.json", json.dumps(summary, indent=1) + "\n")
    lanes = [Lane(trace) for trace in traces]
    page = summary_page(config.name, summary, lanes, matched_messages(traces), step_windows(lanes, torch_step))
    write_fresh(output / "summary.html", page)
    print_summary(summary, console)
    console.print(f"page   {output / 'summary.html'}")
    console.print(f"trace  {output / TRACE} (open it in ui.perfetto.dev or chrome://tracing)")


def _torch_ops(folder: Path, traces: Sequence[RoleTrace], console: Console) -> list[TorchOps]:
    """Read torch's profiles of the roles that have one; warn about an unusable one and leave it out."""
    found: list[TorchOps] = []
    for trace in traces:
        path = folder / f"{trace.role}.torch.json"
        if not path.exists():
            continue
        try:
            found.append(read_torch_ops(path, trace))
        except TraceError as error:
            console.print(f"warning: {error}", style="yellow", markup=False)
    return found
