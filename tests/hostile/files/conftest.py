"""A run of a stranger, and the commands that read one."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from mora_launch.checkpoints.run_checkpoints import Checkpoints
from mora_launch.checkpoints.trained_model import trained_model
from mora_launch.cli import cli
from mora_runtime.errors import CheckpointError
from mora_trainer.checkpoint.commit_record import committed
from strange_run import StrangeRun


@pytest.fixture
def stranger(tmp_path: Path) -> StrangeRun:
    return StrangeRun(tmp_path / "run")


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[StrangeRun, str], None]:
    """Asserts that verify, export, generate and serve, and a resume refuse the run with these words, in one line."""

    def check(run: StrangeRun, words: str) -> None:
        def resume() -> None:
            info = committed(run.checkpoints)
            assert info is not None
            Checkpoints.of_run(run.path).verify(info)

        output = tmp_path / "exports" / "out"
        for command in (["verify", str(run.path)], ["export", str(run.path), "-o", str(output)]):
            error = CliRunner().invoke(cli, ["checkpoint", *command]).exception
            assert isinstance(error, CheckpointError), error
            assert words in str(error), error
            assert "\n" not in str(error)
            assert str(error).isprintable()
        for use in (resume, lambda: trained_model(run.path, None)):
            with pytest.raises(CheckpointError) as caught:
                use()
            assert words in str(caught.value)
        assert not output.exists(), "nothing is left of an export"

    return check
