"""Remote client with a token, and without a token: it sends thousands of random requests."""

from __future__ import annotations

import random

import pytest
from hostile_serving import Served, until
from http_fuzz import Outcome, fuzz_heads, fuzz_operations

pytestmark = [
    pytest.mark.timeout(280),
    pytest.mark.filterwarnings("ignore::Warning"),  # what schemathesis says of its own dependencies
]


def test_two_thousand_odd_requests_cause_no_error_of_the_server(served: Served) -> None:
    outcome = Outcome()
    fuzz_heads(served.url, 1300, outcome, random.Random(2403))
    fuzz_operations(served.url, 90, outcome)
    assert not outcome.faults, outcome.faults[:5]
    assert outcome.num_requests >= 2000, outcome.statuses
    assert outcome.statuses["200"] > 50, outcome.statuses
    assert served.http.get("/healthz").status_code == 200
    until(lambda: served.http.get("/readyz").json()["ready"], "the server is ready again")
