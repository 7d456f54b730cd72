"""The summary of an evaluation: what was measured and how, overall values, totals, refusals and failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mora_launch.evaluation.measuring.measurements import Failure
from mora_launch.evaluation.measuring.plan import Measured
from mora_launch.evaluation.measuring.result import Result
from mora_launch.evaluation.output.overall import Overall, overall, totals
from mora_launch.evaluation.suite.sources import Sources

MODE = "short"


@dataclass(frozen=True)
class Refusal:
    """A dimension that cannot be measured for a video."""

    file: str
    dimension: str
    why: str


@dataclass
class Outcome:
    """Everything that is known at the end of an evaluation.

    Attributes:
        results: by name of the video and dimension, in the order of the videos; refused ones are among them.
        unmeasured: dimensions that no metric measured, and why.
        notes: lines of the metrics, such as licences.
        modulation: mode of modulation of the run that made the videos; empty if they are from elsewhere.
        made: metrics whose weights are made, not published.
    """

    name: str
    suite: str
    dimensions: tuple[str, ...]
    sources: Sources
    measured: list[Measured] = field(default_factory=list)
    results: dict[tuple[str, str], Result] = field(default_factory=dict)
    refused: list[Refusal] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    unmeasured: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    task: str = "text-to-video"
    modulation: str = ""
    made: list[str] = field(default_factory=list)

    def named(self, dimension: str, group: str | None = None) -> list[tuple[str, Result]]:
        """Return names of videos with their results of a dimension, in the order of the videos.

        Args:
            group: of videos that count; by default those of a run's last step, or all without a run.
        """
        wanted = self.last_group if group is None else group
        names = [video.name for video in self.sources.videos if video.group == wanted]
        return [(name, self.results[name, dimension]) for name in names if (name, dimension) in self.results]

    def overall(self, dimension: str, group: str | None = None) -> Overall | None:
        """Return the overall value of a dimension, of the videos of `named`."""
        return overall(result for _, result in self.named(dimension, group))

    def totals(self, group: str | None = None) -> dict[str, float]:
        """Return the totals over the dimensions."""
        found = {name: self.overall(name, group) for name in self.dimensions}
        return totals({name: each.value for name, each in found.items() if each is not None})

    @property
    def last_group(self) -> str:
        """Label of a run's last step; empty without a run."""
        return self.groups[-1] if self.groups else ""

    @property
    def groups(self) -> list[str]:
        """Labels of the steps of a run, in order; empty without a run."""
        return list(dict.fromkeys(video.group for video in self.sources.videos if video.group))

    def all_refused(self) -> list[Refusal]:
        """Return refusals by the metrics and by the plan."""
        by_metric = [
            Refusal(name, dimension, result.refused)
            for (name, dimension), result in self.results.items()
            if result.refused
        ]
        return [*by_metric, *self.refused]


def summary(outcome: Outcome) -> dict[str, Any]:
    """Return the summary as JSON."""
    return {
        "name": outcome.name,
        "task": outcome.task,
        "modulation": outcome.modulation,
        "suite": outcome.suite,
        "mode": MODE,
        "prompts": outcome.sources.prompt_set,
        "num_videos": len(outcome.sources.videos),
        "group": outcome.last_group,
        "shapes": _shapes(outcome.results),
        "dimensions": {name: _dimension(outcome, name) for name in outcome.dimensions},
        "totals": outcome.totals(),
        "groups": {group: _group(outcome, group) for group in outcome.groups},
        "refused": [vars(each) for each in outcome.all_refused()],
        "failed": [vars(each) for each in outcome.failed],
        "made": outcome.made,
        "notes": outcome.notes,
    }


def _dimension(outcome: Outcome, name: str) -> dict[str, Any]:
    if name in outcome.unmeasured:
        return {"overall": None, "not_measured": outcome.unmeasured[name]}
    found = outcome.overall(name)
    how = next(each for each in outcome.measured if each.dimension == name)
    return {
        "overall": None if found is None else found.value,
        "half_width_95": None if found is None else found.half_width,
        "num_videos": 0 if found is None else found.num_videos,
        "num_refused": sum(each.dimension == name for each in outcome.all_refused()),
        "num_failed": sum(each.dimension == name for each in outcome.failed),
        "num_missing": outcome.sources.missing.get(name, 0),
        "metric": how.metric,
        "version": how.version,
        "settings": dict(how.settings),
        "options": dict(how.options),
    }


def _group(outcome: Outcome, group: str) -> dict[str, Any]:
    found = {name: outcome.overall(name, group) for name in outcome.dimensions}
    values = {
        name: {"overall": each.value, "half_width_95": each.half_width, "num_videos": each.num_videos}
        for name, each in found.items()
        if each is not None
    }
    return {"dimensions": values, "totals": outcome.totals(group)}


def _shapes(results: Mapping[tuple[str, str], Result]) -> list[dict[str, Any]]:
    """Sizes, lengths and rates of the measured videos, the most frequent first."""
    by_video = {name: result for (name, _), result in results.items() if result.num_frames}
    counted = Counter((each.width, each.height, each.num_frames, round(each.fps, 3)) for each in by_video.values())
    return [
        {"width": width, "height": height, "num_frames": frames, "fps": fps, "num_videos": number}
        for (width, height, frames, fps), number in counted.most_common()
    ]
