"""Which jobs are removed when there are too many: the oldest of the tenant that has the most.

So a tenant that has no more than an equal share of what is kept loses nothing to the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from mora_launch.serving.http.jobs.video_job import VideoJob


def oldest_of_largest(jobs: Sequence[VideoJob], used: Mapping[str, int]) -> VideoJob:
    """Return the job to remove first.

    Args:
        jobs: oldest first; at least one.
        used: how much each tenant has.
    """
    return max(jobs, key=lambda job: used[job.terms.tenant])  # the first of several


def surplus(jobs: Sequence[VideoJob], num_kept: int) -> list[VideoJob]:
    """Return the jobs to remove so that `num_kept` are left.

    Args:
        jobs: oldest first.
    """
    left, old = list(jobs), list[VideoJob]()
    num_of = Counter(job.terms.tenant for job in left)
    while len(left) > num_kept:
        old.append(oldest_of_largest(left, num_of))
        num_of[old[-1].terms.tenant] -= 1
        left = [job for job in left if job is not old[-1]]
    return old
