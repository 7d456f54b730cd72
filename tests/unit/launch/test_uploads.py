"""Files are decoded on behalf of the tenant that sent them, and not for a request that would be refused afterwards."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from instant_server import InstantServer, instant_server, said
from mora_launch.decoding.job import DecodeJob
from mora_launch.web.access import TENANT
from PIL import Image


@pytest.fixture
def served(tmp_path: Path) -> Iterator[InstantServer]:
    with instant_server(tmp_path, "serving.max_waiting=2") as made:
        yield made


@pytest.fixture
def decoded_for(served: InstantServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tenant of each file that has been queued for decoding."""
    tenants: list[str] = []
    submit = served.front.decoders.submit

    def recorded(job: DecodeJob, tenant: str = "") -> None:
        tenants.append(tenant)
        submit(job, tenant)

    monkeypatch.setattr(served.front.decoders, "submit", recorded)
    return tenants


def client_of(served: InstantServer, tenant: str) -> TestClient:
    async def with_tenant(scope: Any, receive: Any, send: Any) -> None:
        await served.app({**scope, TENANT: tenant}, receive, send)

    return TestClient(with_tenant, base_url="http://127.0.0.1:8000")


def picture() -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(sink, "PNG")
    return sink.getvalue()


def animate(client: TestClient, **fields: str) -> Any:
    return client.post("/v1/videos", data={"prompt": "x", **fields}, files={"input_reference": picture()})


def test_files_are_decoded_on_behalf_of_the_tenant_that_sent_them(
    served: InstantServer, decoded_for: list[str]
) -> None:
    for tenant in ("ann", "bob"):
        answer = animate(client_of(served, tenant))
        assert answer.status_code == 200, answer.text
        served.finished(answer.json()["id"])
    edited = client_of(served, "cid").post("/v1/images/edits", data={"prompt": "x"}, files={"image": picture()})
    assert edited.status_code == 200, edited.text
    assert decoded_for == ["ann", "bob", "cid"]
    assert served.front.uploads.num_admitted == served.front.decoding.nbytes == 0


def test_a_spritesheet_is_read_on_behalf_of_the_tenant_that_asks_for_it(
    served: InstantServer, decoded_for: list[str]
) -> None:
    job = served.video()
    answer = client_of(served, "bob").get(f"/v1/videos/{job['id']}/content", params={"variant": "spritesheet"})
    assert answer.status_code == 200, answer.text
    assert decoded_for == ["bob"]


def test_a_request_for_which_there_is_no_room_is_refused_before_its_files_are_decoded(
    served: InstantServer, decoded_for: list[str]
) -> None:
    for _ in range(2):
        served.front.admission.enter("ann")
    assert "2 requests are in progress" in said(animate(client_of(served, "ann")), 429)
    assert decoded_for == []
    served.front.admission.leave("ann")
    assert animate(client_of(served, "ann")).status_code == 200
    assert decoded_for == ["ann"]
