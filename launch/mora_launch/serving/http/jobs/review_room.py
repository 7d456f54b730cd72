"""Limits the disk space of reviews: stopped ones are removed, open ones never.

With several tenants, a part of the space is reserved for the open reviews of each, and the oldest stopped review of the
tenant that uses the most is removed first.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from mora_launch.serving.http.admission import Quantity, TooBusy
from mora_launch.serving.http.jobs.eviction import oldest_of_largest, surplus
from mora_launch.serving.http.jobs.job_folder import JobFolder
from mora_launch.serving.http.jobs.video_job import VideoJob
from mora_launch.serving.settings import ServingSettings

_RETRY_AFTER_S = 60
_SETTLED_NS = 100_000_000  # more than the step of the clock with which file systems stamp changes


class ReviewRoom:
    """The limits on the reviews of one server.

    Args:
        folder: contains the reviews and their uploaded files.
        tenants: for whom a part of the space is reserved.
    """

    def __init__(self, folder: JobFolder, settings: ServingSettings, tenants: Collection[str] = ()) -> None:
        self._folder = folder
        self._settings = settings
        self._tenants = tenants
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

    def too_old(
        self, jobs: Sequence[VideoJob], sizes: Mapping[str, int], new_nbytes: int = 0, tenant: str = ""
    ) -> list[VideoJob]:
        """Return the stopped reviews to remove so that `new_nbytes` more of a tenant fit.

        Args:
            sizes: of these jobs' reviews; one that is not in it does not count.

        Raises:
            TooBusy: open reviews alone leave too little room.
        """
        known = [job for job in jobs if job.id in sizes]
        if new_nbytes:
            self._check_open([job for job in known if not job.is_stopped_review], sizes, new_nbytes, tenant)
        used = Counter({tenant: new_nbytes})
        for job in known:
            used[job.terms.tenant] += sizes[job.id]
        left = sorted((job for job in known if job.is_stopped_review), key=lambda job: job.completed_at or 0)
        old: list[VideoJob] = []
        while left and used.total() > self._settings.max_review_nbytes:
            old.append(oldest_of_largest(left, used))
            used[old[-1].terms.tenant] -= sizes[old[-1].id]
            left = [job for job in left if job is not old[-1]]
        return [*old, *surplus(left, self._settings.max_kept_reviews)]

    def _check_open(self, jobs: Sequence[VideoJob], sizes: Mapping[str, int], new_nbytes: int, tenant: str) -> None:
        space = Quantity(self._settings.max_review_nbytes, self._tenants)
        for job in jobs:
            space.add(job.terms.tenant, sizes[job.id])
        # alone, a review may also use the parts of others, or one that is larger than the rest could never be served
        most = space.limit_for(tenant) if space.used else self._settings.max_review_nbytes
        if space.used + new_nbytes > most:
            used = f"open reviews use {space.used:.0f} bytes, the limit is {most:.0f}"
            raise TooBusy(f"{used}; finish or delete one, then retry", _RETRY_AFTER_S)
