"""Limits the disk space of reviews: stopped ones are removed, the oldest first; open ones never."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

from mora_launch.serving.http.admission import TooBusy
from mora_launch.serving.http.jobs.job_folder import JobFolder
from mora_launch.serving.http.jobs.video_job import VideoJob
from mora_launch.serving.settings import ServingSettings

_RETRY_AFTER_S = 60
_SETTLED_NS = 100_000_000  # more than the step of the clock with which file systems stamp changes


class ReviewRoom:
    """The limits on the reviews of one server.

    Args:
        folder: contains the reviews and their uploaded files.
    """

    def __init__(self, folder: JobFolder, settings: ServingSettings) -> None:
        self._folder = folder
        self._settings = settings
        self._measured: dict[str, tuple[int, int]] = {}  # by id: time of the last change, and size
        self._measuring = threading.Lock()

    def sizes(self, jobs: Sequence[VideoJob]) -> dict[str, int]:
        """Return the size on disk of each review by its id. A review that has not changed is not measured again."""
        reviewed = [job for job in jobs if job.session is not None]
        with self._measuring:
            # A folder that has just changed may change again with the same stamp, so its size is not remembered.
            settled_ns = time.time_ns() - _SETTLED_NS
            measured = {job.id: self._measure(job) for job in reviewed}
            self._measured = {name: known for name, known in measured.items() if known[0] < settled_ns}
        return {name: nbytes for name, (_, nbytes) in measured.items()}

    def _measure(self, job: VideoJob) -> tuple[int, int]:
        changed_ns = self._folder.review_changed_ns(job)  # before the size, which may change meanwhile
        known = self._measured.get(job.id)
        if known is not None and known[0] == changed_ns:
            return known
        return changed_ns, self._folder.review_nbytes(job)

    def too_old(self, jobs: Sequence[VideoJob], sizes: Mapping[str, int], new_nbytes: int = 0) -> list[VideoJob]:
        """Return the stopped reviews to remove so that `new_nbytes` more fit.

        Args:
            sizes: of these jobs' reviews; one that is not in it does not count.

        Raises:
            TooBusy: open reviews alone leave too little room.
        """
        most = self._settings.max_review_nbytes
        known = [job for job in jobs if job.id in sizes]
        stopped = sorted((job for job in known if job.is_stopped_review), key=lambda job: job.completed_at or 0)
        total = sum(sizes[job.id] for job in known) + new_nbytes
        if new_nbytes and total - sum(sizes[job.id] for job in stopped) > most:
            text = f"open reviews use {total - new_nbytes} bytes, the limit is {most}; finish or delete one, then retry"
            raise TooBusy(text, _RETRY_AFTER_S)
        old: list[VideoJob] = []
        while len(stopped) > len(old) and (total > most or len(stopped) - len(old) > self._settings.max_kept_reviews):
            total -= sizes[stopped[len(old)].id]
            old.append(stopped[len(old)])
        return old
