"""Scores of outputs that are compared with their inputs, from stored features: TCON and Tmean."""

from __future__ import annotations

from collections.abc import Mapping

from mora_runtime.errors import BadArgument

from mora_launch.evaluation.measuring.feature_plan import Comparison
from mora_launch.evaluation.measuring.plan import Measured
from mora_launch.evaluation.measuring.result import Key, Result
from mora_launch.evaluation.measuring.result_store import ResultStore
from mora_launch.evaluation.output.paper_formulas import cosine, tmean


def compared(
    places: Mapping[str, tuple[Key, ...]], how: Comparison, measured: Measured, store: ResultStore
) -> dict[tuple[str, str], Result]:
    """Return the results of all outputs whose features are there, by name of the output and metric.

    Args:
        places: as `plan_features` returns them.
    """
    found: dict[tuple[str, str], Result] = {}
    for name, keys in places.items():
        features = [store.get(key) for key in keys]
        there = [each for each in features if each is not None]
        if len(there) < len(keys):
            continue  # a failure has been told
        output = there[1]
        score, why = _score(there, how.metric)
        found[name, how.metric] = Result(
            name, Key(output.key.sha256, how.metric, measured.version, output.key.settings), measured.metric,
            dict(how.settings), score=score, refused=why, num_frames=output.num_frames, height=output.height,
            width=output.width, fps=output.fps, details={"features_of": [each.file for each in there]},
        )  # fmt: skip
    return found


def _score(features: list[Result], metric: str) -> tuple[float | None, str]:
    """The score, or why there is none."""
    refused = next((f"{each.file}: {each.refused}" for each in features if each.refused), "")
    if refused:
        return None, refused
    vectors = [each.details["features"] for each in features]
    try:
        return (cosine(vectors[0], vectors[1]) if metric == "tcon" else tmean(*vectors)), ""
    except BadArgument as error:
        return None, str(error)
