"""The limit of open files."""

import resource
import subprocess
import sys

from mora_launch.jobs.open_files import allow_open_files


def test_the_limit_is_raised_to_the_allowed_maximum_for_children_too() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, before[1]))
    try:
        allow_open_files()
        show = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
        done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True, timeout=60)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert int(done.stdout) == before[1] > 128
