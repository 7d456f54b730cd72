"""The pool offers servers by their capabilities."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from mora_launch.checkpoints.adapter_catalog import AdapterCatalog, NamedAdapters
from mora_launch.serving.counters import Counters
from mora_launch.serving.http.front import status_of
from mora_launch.serving.server_pool import ServerPool
from mora_launch.serving.terms import LoraChoice, Terms
from mora_launch.serving.work_queue import WorkQueue
from mora_runtime.errors import MoraError, RoleFailed


def worker(agent: str, *capabilities: str, adapters: Sequence[str] = (), unfit: Sequence[str] = ()) -> Any:
    """A server that is already connected."""
    made = SimpleNamespace(
        role=f"{agent}.0", agent=agent, capabilities=capabilities, description={"model": agent},
        start=lambda: None, wait_connected=lambda _: True, adapters=SimpleNamespace(names=adapters, unfit=unfit),
    )  # fmt: skip

    def leave(others: set[str]) -> None:
        made.capabilities = tuple(name for name in made.capabilities if name not in others)

    made.leave = leave
    return made


def pool(*workers: Any, catalog: AdapterCatalog | None = None, **promised: list[str]) -> ServerPool:
    return ServerPool(workers, WorkQueue({}), Counters(), promised, catalog or AdapterCatalog())


def test_callers_name_a_capability_and_not_an_agent() -> None:
    made = pool(worker("image", "text_to_image"), worker("connector", "connect_videos"), connector=["connect_videos"])
    made.start(1.0)
    assert made.capabilities() == ["text_to_image", "connect_videos"]
    assert made.describe("connect_videos") == {"agent": "connector", "model": "connector"}
    with pytest.raises(RoleFailed, match="the configured servers have text_to_image, conn"):
        made.describe("extend_video")


def test_of_two_agents_with_a_capability_the_first_one_serves_it() -> None:
    first, second = worker("image", "text_to_image", "image_to_image"), worker("refine", "image_to_image")
    made = pool(first, second)
    made.start(1.0)
    assert made.describe("image_to_image")["agent"] == "image"
    assert second.capabilities == ()


def test_an_agent_without_its_configured_capability_is_refused() -> None:
    made = pool(worker("connector", "connect_videos"), connector=["connect_videos", "text_to_image"])
    with pytest.raises(RoleFailed, match=r"connector: its `capabilities` name text_to_image, which its model"):
        made.start(1.0)


def test_samples_that_are_taken_back_are_counted_apart() -> None:
    made = pool(worker("image", "text_to_image"))
    made.start(1.0)
    first, second = (made.submit("text_to_image", {"prompts": "a", "seeds": seed}, {}) for seed in (1, 2))
    first.cancel()
    first.cancel()
    second.finish("a picture")
    count = made.counters.registry.get_sample_value("mora_cancelled_total", {"capability": "text_to_image"})
    assert count == 1


def test_counters_with_known_labels_start_at_0() -> None:
    made = pool(worker("image", "text_to_image"), worker("video", "image_to_video"))
    made.start(1.0)
    value = made.counters.registry.get_sample_value
    assert value("mora_cancelled_total", {"capability": "text_to_image"}) == 0
    assert value("mora_cancelled_total", {"capability": "image_to_video"}) == 0
    assert value("mora_cancelled_total", {"capability": "connect_videos"}) is None, "no server has it"
    for kind in ("picture", "text_to_video", "connect"):
        labels = {"kind": kind, "finished_reason": "completed", "code": ""}
        assert value("mora_request_success_total", labels) == 0


def test_work_that_is_left_when_the_servers_end_says_so() -> None:
    made = pool(worker("image", "text_to_image"))
    made.start(1.0)
    work = made.submit("text_to_image", {"prompts": "a", "seeds": 1}, {})
    made.workers = []
    made.close()
    error = work.future.exception(1.0)
    assert isinstance(error, MoraError)
    assert (error.code, str(error), status_of(type(error))) == ("server_stopped", "the servers are being stopped", 503)


def named(*names: str) -> AdapterCatalog:
    return AdapterCatalog({name: NamedAdapters(name, "a folder") for name in names})


def test_an_agent_without_adapters_of_a_name_works_without_them() -> None:
    image = worker("image", "text_to_image", adapters=["ink", "both"])
    video = worker("video", "image_to_video", adapters=["both"])
    made = pool(image, video, catalog=named("ink", "both"))
    made.start(1.0)
    assert made.adapters.agents_of("both") == ["image", "video"]
    ink = Terms(tenant="ann", lora=LoraChoice(name="ink", scale=0.5))
    works = [made.submit(name, {"prompts": "a"}, {}, terms=ink) for name in ("text_to_image", "image_to_video")]
    assert [work.terms.lora for work in works] == [ink.lora, None]
    assert {work.terms.tenant for work in works} == {"ann"}


def test_adapters_with_a_scale_of_0_are_no_adapters() -> None:
    made = pool(worker("image", "text_to_image", adapters=["ink"]), catalog=named("ink"))
    made.start(1.0)
    none, faint = (LoraChoice(name="ink", scale=scale) for scale in (0.0, 0.01))
    without, *works = (
        made.submit("text_to_image", {"prompts": "a"}, {}, terms=Terms(lora=lora)) for lora in (None, none, faint)
    )
    assert [work.terms.lora for work in works] == [None, faint]
    assert [work.key == without.key for work in works] == [True, False], "they share batches and bytes"


def test_adapters_that_fit_no_agent_are_refused_with_the_layer() -> None:
    line = "adapters `ink`: layer `a.to_q`: the model has no such layer"
    made = pool(worker("image", "text_to_image", unfit=[line]), catalog=named("ink"))
    with pytest.raises(RoleFailed, match=r"serving.adapters: `ink` fits no agent \(adapters `ink`: layer `a.to_q`"):
        made.start(1.0)


def test_the_cost_of_a_call_is_frames_times_pixels_times_steps() -> None:
    image = worker("image", "text_to_image")
    image.description |= {"height": 1000, "width": 500, "num_frames": 1, "num_inference_steps": 4}
    made = pool(image)
    made.start(1.0)
    own = made.submit("text_to_image", {"prompts": "a"}, {"num_inference_steps": None})
    other = made.submit("text_to_image", {"prompts": "a"}, {"height": 2000, "num_inference_steps": 8})
    assert own.cost == pytest.approx(2.0)
    assert other.cost == pytest.approx(8.0)
