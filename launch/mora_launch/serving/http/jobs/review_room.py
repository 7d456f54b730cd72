"""Limits the disk space of reviews: stopped ones are removed, the oldest first; open ones never."""

from __future__ import annotations

from collections.abc import Iterable

from mora_launch.serving.http.admission import TooBusy
from mora_launch.serving.http.jobs.job_folder import JobFolder
from mora_launch.serving.http.jobs.video_job import VideoJob
from mora_launch.serving.settings import ServingSettings

_RETRY_AFTER_S = 60


class ReviewRoom:
    """The limits on the reviews of one server.

    Args:
        folder: contains the reviews and their uploaded files.
    """

    def __init__(self, folder: JobFolder, settings: ServingSettings) -> None:
        self._folder = folder
        self._settings = settings

    def too_old(self, jobs: Iterable[VideoJob], new_nbytes: int = 0) -> list[VideoJob]:
        """Return the stopped reviews to remove so that `new_nbytes` more fit.

        Raises:
            TooBusy: open reviews alone leave too little room.
        """
        most = self._settings.max_review_nbytes
        sizes = {job.id: self._folder.review_nbytes(job) for job in jobs if job.session is not None}
        stopped = sorted((job for job in jobs if job.is_stopped_review), key=lambda job: job.completed_at or 0)
        total = sum(sizes.values()) + new_nbytes
        if new_nbytes and total - sum(sizes[job.id] for job in stopped) > most:
            text = f"open reviews use {total - new_nbytes} bytes, the limit is {most}; finish or delete one, then retry"
            raise TooBusy(text, _RETRY_AFTER_S)
        old: list[VideoJob] = []
        while len(stopped) > len(old) and (total > most or len(stopped) - len(old) > self._settings.max_kept_reviews):
            total -= sizes[stopped[len(old)].id]
            old.append(stopped[len(old)])
        return old
