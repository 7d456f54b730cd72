"""`mora review`: runs the review in the terminal or serves its page."""

from __future__ import annotations

import json
from pathlib import Path

from mora_runtime.errors import RoundError
from rich.console import Console

from mora_launch.config.train_config import TrainConfig, stored_config
from mora_launch.rounds.review.queue import ReviewQueue
from mora_launch.rounds.review.terminal import TerminalReview, statistics
from mora_launch.web.listening import bound, url_of


def review(run: Path, reviewer: str, address: tuple[str, int] | None, only_statistics: bool, console: Console) -> int:
    """Review the queue in the terminal, or serve the page at `address`; return 0.

    Raises:
        RoundError: the directory is not a run of rounds, or there is no terminal.
    """
    queue = ReviewQueue(run, reviewer)
    config = _config(run)
    if not only_statistics and address is not None:
        from mora_launch.rounds.review.page import ReviewPage
        from mora_launch.web.access import Access
        from mora_launch.web.http_server import tell_address

        with bound(*address) as taken:
            access, url = Access.at(address[0], None, run), url_of(*address)
            tell_address(console, "review at", url, access, run)
            ReviewPage(run).serve(access, taken)
    elif not only_statistics:
        number = TerminalReview(queue, config.clip, console).run()
        console.print(f"{number} decided, {len(queue.waiting())} waiting")
    console.print(statistics(run), markup=False)
    return 0


def _config(run: Path) -> TrainConfig:
    path = run / "config.json"
    try:
        return stored_config(json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError) as error:
        raise RoundError(f"{path}: cannot be read ({error}); expected the directory of a run") from None
