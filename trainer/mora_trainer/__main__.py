"""Entry of a coordinator rank: `python -m mora_trainer --settings FILE --supervisor-fd N`."""

from __future__ import annotations

import sys
from pathlib import Path

from mora_runtime.errors import DeadlineExceeded, MoraError, PeerDied, StepAborted
from mora_runtime.process.logs import start_logging
from mora_runtime.process.run_directory import RunDirectory
from mora_runtime.process.supervisor_link import SupervisorLink
from mora_runtime.schema import settings_from_argv

from mora_trainer.settings import CoordinatorSettings
from mora_trainer.terminal import clean_tracebacks

EXIT_STOPPED = 3  # ended cleanly on request before the last step; the launcher maps it to its own exit code


def main() -> int:
    """Run one rank; 0 = trained to the end, 3 = stopped on request with a checkpoint, 1 = failed."""
    clean_tracebacks()
    settings, descriptor = settings_from_argv(CoordinatorSettings)
    link = SupervisorLink(descriptor)
    role = f"coordinator.{settings.replica}"
    start_logging(RunDirectory.open(Path(settings.run_dir)), role=role, generation=settings.generation)
    from mora_runtime.process import faults  # imports torch, which takes seconds: after the settings have been checked
    from mora_runtime.trace import tracing  # the same

    faults.arm(role, Path(settings.run_dir))

    if settings.trace is not None:
        tracing.start(Path(settings.trace), role)
    try:
        from mora_training.process_group import preload

        from mora_trainer.job import TrainingJob

        preload("cpu")
        if not link.wait_for_go():
            return EXIT_STOPPED
        job = TrainingJob(settings, link.stop_requested)
        link.describe = job.vitals
        link.ready()
        done = job.train()
        job.close()
    except MoraError as error:
        link.failed(f"{type(error).__name__}: {error}", is_recoverable=_lost_a_process(error))
        return 1
    finally:
        tracing.stop()
    return 0 if done >= settings.training.num_steps else EXIT_STOPPED


def _lost_a_process(error: MoraError) -> bool:
    """True if this rank failed only because another process died or did not answer."""
    if isinstance(error, StepAborted):
        return error.__cause__ is None or isinstance(error.__cause__, PeerDied | DeadlineExceeded)
    return isinstance(error, PeerDied | DeadlineExceeded)


if __name__ == "__main__":
    sys.exit(main())
