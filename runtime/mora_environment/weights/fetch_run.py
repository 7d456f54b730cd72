"""Carries out a plan: downloads, links the files into the Hub's cache, converts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import TypeVar

from mora_runtime.errors import EndpointFailed
from mora_runtime.files.durable_files import replace_text

from mora_environment.weights.blob_download import download_blob
from mora_environment.weights.fetch_answer import PlannedFile
from mora_environment.weights.fetch_plan import FetchPlan
from mora_environment.weights.hub import Hub
from mora_environment.weights.hub_cache import repository_folder
from mora_environment.weights.hub_errors import is_passing

_NUM_DOWNLOADS = 4  # at the same time
_TELL_EVERY_S = 5.0
_PAUSES_S = (1.0, 4.0, 16.0)  # between attempts of one question
_T = TypeVar("_T")


def run_fetch(hub: Hub, plan: FetchPlan, tell: Callable[[str], None]) -> None:
    """Fetch everything of a plan.

    A repository's files become visible together, when all of them are whole.

    Args:
        tell: takes a line of progress.

    Raises:
        EndpointFailed, StorageError, CheckpointError: what was downloaded is kept, and the next fetch continues there.
    """
    files = sorted(plan.files.values(), key=lambda file: file.nbytes)
    _download(hub, plan, files, _Progress(sum(file.num_missing_nbytes for file in files), tell))
    for file in files:
        _patiently(hub.link, file.repository, plan.commits[file.repository], file.path, plan.options[file.repository])
    for repository, commit in plan.commits.items():
        reference = repository_folder(repository) / "refs" / "main"
        reference.parent.mkdir(parents=True, exist_ok=True)
        replace_text(reference, commit)
    if plan.conversions:
        from mora_environment.weights.conversion import convert  # imports torch

        for task in plan.conversions.values():
            folder = convert(task.source, plan.commits[task.planned.repository], task.files, tell)
            tell(f"converted into {folder}")


def _download(hub: Hub, plan: FetchPlan, files: list[PlannedFile], progress: _Progress) -> None:
    with ThreadPoolExecutor(_NUM_DOWNLOADS) as pool:
        pending = [pool.submit(_download_one, hub, plan, file, progress) for file in files]
        try:
            for done in as_completed(pending):
                done.result()
        except BaseException:
            progress.stop()  # the other downloads end at their next piece
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _download_one(hub: Hub, plan: FetchPlan, file: PlannedFile, progress: _Progress) -> Path:
    repository = file.repository
    asked = (repository, plan.commits[repository], file.path, plan.options[repository])
    locate = partial(_patiently, hub.location, *asked)
    return download_blob(locate, repository_folder(repository) / "blobs", f"{repository}/{file.path}", progress.add)


def _patiently(ask: Callable[..., _T], *arguments: str) -> _T:
    """Ask the Hub again where the cause of a failure may pass: hours of download should not end with one timeout."""
    for pause_s in _PAUSES_S:
        try:
            return ask(*arguments)
        except EndpointFailed as error:
            if not is_passing(error.__cause__):
                raise
            time.sleep(pause_s)
    return ask(*arguments)


class _Progress:
    """Tells every few seconds how many bytes have come; all downloads add to it."""

    def __init__(self, num_expected_nbytes: int, tell: Callable[[str], None]) -> None:
        self._lock = threading.Lock()
        self._expected = num_expected_nbytes
        self._tell = tell
        self._nbytes = 0
        self._start_s = self._told_s = time.monotonic()
        self._is_stopped = False

    def add(self, nbytes: int) -> None:
        """Count new bytes; raises EndpointFailed after `stop`, which ends a download."""
        with self._lock:
            if self._is_stopped:
                raise EndpointFailed("the download was stopped, because another one failed")
            self._nbytes += nbytes
            now_s = time.monotonic()
            if now_s - self._told_s < _TELL_EVERY_S:
                return
            self._told_s = now_s
            rate = self._nbytes / (now_s - self._start_s) / 1e6
            self._tell(f"{self._nbytes / 1e9:.2f} of {self._expected / 1e9:.2f} GB, {rate:.0f} MB/s")

    def stop(self) -> None:
        """End all downloads."""
        with self._lock:
            self._is_stopped = True
