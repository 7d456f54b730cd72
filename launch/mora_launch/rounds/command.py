"""`mora synthesize`: from nothing to a trained model, in rounds."""

from __future__ import annotations

from pathlib import Path

from mora_runtime.errors import RoundError
from mora_runtime.process.run_directory import RunDirectory
from rich.console import Console

from mora_launch.config.train_config import TrainConfig, stored_config
from mora_launch.environments.catalog import environments_of
from mora_launch.jobs.chain import check_chain
from mora_launch.jobs.job_servers import JobServers
from mora_launch.jobs.machine import check_machine
from mora_launch.jobs.run_path import CONFIG_COPY, made_run, run_path
from mora_launch.jobs.servers import check_agents
from mora_launch.rounds.evaluation_metrics import held_out_metrics
from mora_launch.rounds.judging.judge import Interrupted
from mora_launch.rounds.judging.judges import judged_criteria, open_judges
from mora_launch.rounds.report import summary_tables
from mora_launch.rounds.round_runner import RoundRunner, WaitsForReview
from mora_launch.rounds.store import read_json, write_once
from mora_launch.weights.missing import refuse_missing

EXIT_INTERRUPTED = 130
EXIT_WAITS_FOR_REVIEW = 4


def synthesize(config: TrainConfig, *, run: Path | None, resume: bool, console: Console) -> int:
    """Run all rounds that are not done yet.

    Returns:
        0 when all are, 4 when a person has to review, 130 when stopped by Ctrl-C. Both can be resumed.

    Raises:
        MoraError: refused, or a part failed; what was made is kept.
    """
    check_machine()
    config_copy, config = config, config.of_chain()
    checked = check_agents(config, console)
    check_chain(config, checked)
    refuse_missing(checked.values())
    path = run_path(run, f"{config.name}-rounds", resume=resume)
    judges = open_judges(config.synthesis, environments_of(config))
    judged_criteria(config.synthesis, judges)  # refuses judges without a common criterion before anything is made
    held_out_metrics(path, config, console).check()
    path = made_run(run, path)
    with RunDirectory.create(path, lock=True) as directory:
        _keep_config(config_copy, directory.path / CONFIG_COPY)
        console.print(f"run {directory.path}", markup=False)
        try:
            with JobServers(config, checked, directory, console) as servers:
                RoundRunner(config, checked, directory, judges, servers, console).run()
        except Interrupted:
            console.print(f"stopped; continue with --resume --run {path}", markup=False)
            return EXIT_INTERRUPTED
        except WaitsForReview as waits:
            then = f"./mora review {path}, then this command with --resume"
            console.print(f"{waits}: {then}", style="yellow", markup=False)
            return EXIT_WAITS_FOR_REVIEW
        for table in summary_tables(directory.path, config):
            console.print(table)
    return 0


def _keep_config(config: TrainConfig, path: Path) -> None:
    """Write the run's configuration; a resumed run may only make more rounds than it was started with."""
    content = config.model_dump(mode="json")
    if path.exists():
        before = stored_config(read_json(path), str(path))
        changed = sorted(_changed(before.model_dump(mode="json"), content))
        if changed:
            raise RoundError(
                f"{path.parent}: was started with another configuration ({', '.join(changed[:5])}); rounds would not "
                "be what they say they are: resume with the same one, or start another --run"
            )
    write_once(path, content)


_MAY_CHANGE = (
    "synthesis.num_rounds", "synthesis.review", "synthesis.evaluation_metrics", "restarts", "start_deadline_s",
    "evaluation",
)  # fmt: skip


def _changed(before: object, now: object, key: str = "") -> list[str]:
    if key.startswith(_MAY_CHANGE):
        return []
    if isinstance(before, dict) and isinstance(now, dict):
        names = sorted({*before, *now})
        return [
            found
            for name in names
            for found in _changed(before.get(name), now.get(name), f"{key}.{name}" if key else name)
        ]
    return [] if before == now else [key]
