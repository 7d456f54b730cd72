"""`mora models fetch` for metrics: brings what the Hub has, and says where the other files are."""

from __future__ import annotations

from rich.console import Console

from mora_launch.evaluation.config import EvaluationConfig
from mora_launch.evaluation.measuring.checked_metrics import check_each
from mora_launch.weights.fetch import fetch_models


def fetch_metrics(config: EvaluationConfig, console: Console) -> bool:
    """Fetch the weights of all metrics of a configuration.

    Returns:
        False if a file has to be placed by hand; a line for each says where it is.

    Raises:
        MoraError: an environment cannot be built, the Hub refuses or cannot be reached, or the disk is too small.
    """
    served = config.served(config.evaluation.all_metrics())
    checked, refused = check_each(served, console)
    for why in refused.values():
        console.print(why, style="yellow", markup=False)
    if checked:
        agents = {name: served.agents[name] for name in checked}
        fetch_models(served.model_copy(update={"agents": agents}), console)
    return not refused
