"""The command `fetch`: downloads and converts what some agents load, or says what that would be.

The request is one line of JSON on the standard input, the answer JSON on the standard output. Lines of progress go to
the standard error.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

from mora_runtime.errors import MoraError

from mora_environment.kind import Kind
from mora_environment.options_command import read_request
from mora_environment.weights.converted_folder import converted_root
from mora_environment.weights.fetch_answer import FetchAnswer
from mora_environment.weights.fetch_plan import FetchPlan, plan_fetch
from mora_environment.weights.fetch_run import run_fetch
from mora_environment.weights.hub import Hub
from mora_environment.weights.hub_cache import cache_folder

PROGRESS_MARK = "fetch: "  # begins the lines of progress on the standard error, where libraries write too


def answer_fetch(kinds: Mapping[str, Kind], package: str) -> None:
    """Read a request, and answer it."""
    request = json.loads(sys.stdin.readline())
    if request.get("ends_with_input"):
        threading.Thread(target=_end_with_input, name="ends with the launcher", daemon=True).start()
    json.dump(fetch(kinds, package, request), sys.stdout)


def _end_with_input() -> None:
    """End this process when the launcher, which has the other end of the standard input, is dead or interrupted."""
    while os.read(0, 1024):
        pass
    os._exit(1)


def fetch(kinds: Mapping[str, Kind], package: str, request: dict[str, Any]) -> dict[str, Any]:
    """Answer a request.

    Args:
        request: `agents`, each as for the command `options`; `download`, False only plans; and `ends_with_input`, the
            standard input stays open as long as the launcher wants the fetch.

    Returns:
        `FetchAnswer` as JSON, or `{"error"}`.
    """
    try:
        sources = []
        for agent in request["agents"]:
            kind, options = read_request(kinds, package, agent)
            for source in kind.weights_sources_of(options):
                sources.append(source.model_copy(update={"option": f"{agent['source']}.{source.option}"}))
        hub = Hub()
        plan = plan_fetch(hub, sources)
        if request["download"]:
            run_fetch(hub, plan, _tell)
        return _answer(plan).model_dump(mode="json")
    except MoraError as error:
        return {"error": str(error)}


def _answer(plan: FetchPlan) -> FetchAnswer:
    return FetchAnswer(
        cache=str(cache_folder()),
        converted=str(converted_root()),
        files=tuple(plan.files.values()),
        conversions=tuple(task.planned for task in plan.conversions.values()),
    )


def _tell(line: str) -> None:
    print(f"{PROGRESS_MARK}{line}", file=sys.stderr, flush=True)
