"""The plan of a job: memory by phase, time, better placements, and the refusal of what does not fit. Needs no GPU."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
from mora_environment.component import Component
from mora_environment.cost import AgentCost, CallCost, Work
from mora_environment.interface import Interface
from mora_launch.config.train_config import load_config
from mora_launch.environments.agent_options import CheckedOptions
from mora_launch.environments.venvs import ROOT
from mora_launch.jobs.cuda_driver import CudaDriver, Gpu
from mora_launch.planning.alternatives import alternatives, best, busy_shares
from mora_launch.planning.disk_room import DiskRoom
from mora_launch.planning.host_needs import host_needs
from mora_launch.planning.job_plan import JobPlan
from mora_launch.planning.machine import planned_gpu
from mora_launch.planning.memory_parts import PHASES, MemoryParts
from mora_launch.planning.plan_table import plan_content
from mora_runtime.errors import PlacementError, SettingsError
from mora_runtime.wire.messages import PROTOCOL_VERSION

T = 10**12
SD3, OSP, T5, MT5 = 2_028_328_000, 2_782_603_024, 5_580_620_800, 5_655_173_120
NO_GPUS = CudaDriver(0, ())


def options_of(*components: Component) -> CheckedOptions:
    return CheckedOptions(
        protocol=PROTOCOL_VERSION, options={}, components=components, interface=Interface(), weights="model",
        weights_folder=None,
    )  # fmt: skip


def component(name: str, number: int, *, nbytes: int = 2, trains: bool = False, leaves: bool = False) -> Component:
    return Component(name=name, num_parameters=number, dtype_nbytes=nbytes, trainable=trains, is_unloaded=leaves)


CHECKED = {
    "image": options_of(
        component("transformer", SD3, trains=True), component("vae", 83_819_683), component("texts", T5, leaves=True)
    ),
    "video": options_of(
        component("transformer", OSP, trains=True), component("vae", 239_189_991, nbytes=4),
        component("text", MT5, leaves=True),
    ),
}  # fmt: skip
COSTS = {
    "image": AgentCost(
        num_trained=SD3,
        step=CallCost(
            forward=Work(matmul=140 * T, num_operations=35_000), backward=Work(matmul=18 * T), forward_nbytes=4 * 10**9,
            graph_nbytes=3 * 10**9, backward_nbytes=4 * 10**9,
        ),
        sample=CallCost(forward=Work(matmul=140 * T)),
    ),
    "video": AgentCost(
        num_trained=OSP,
        prepare=CallCost(forward_nbytes=5 * 10**9),
        step=CallCost(
            forward=Work(matmul=140 * T, attention=250 * T), backward=Work(matmul=400 * T, attention=870 * T),
            forward_nbytes=6 * 10**9, graph_nbytes=5 * 10**9, backward_nbytes=10 * 10**9,
        ),
        sample=CallCost(forward=Work(matmul=30_000 * T, attention=54_000 * T), forward_nbytes=12 * 10**9),
    ),
}  # fmt: skip


def plan(*changes: str, costs: dict[str, AgentCost | None] | None = None, gpu: str = "H100") -> JobPlan:
    """The paper's job on assumed GPUs."""
    config = load_config(ROOT / "configs" / "mora-osp-8xh100.yaml", list(changes)).of_chain()
    devices = {agent.device(r) for agent in config.agents.values() for r in range(config.replicas)} - {"cpu"}
    gpus = {device: planned_gpu(device, NO_GPUS, gpu) for device in devices}
    return JobPlan(config, CHECKED, dict(COSTS) if costs is None else costs, gpus)


def test_parts_of_the_step_are_those_of_the_optimizer_and_of_the_graph() -> None:
    step = plan().devices["cuda:4"]["step"]
    assert step.weights == 2 * OSP + 4 * 239_189_991, "the text encoder has left"
    assert step.gradients == 4 * OSP, "float32 sums"
    assert step.optimizer == 12 * OSP // 4
    assert step.ema == 4 * OSP // 4
    assert step.graphs == 10 * 10**9, "the last agent has one graph at a time"


def test_an_agent_inside_the_chain_keeps_a_graph_for_every_micro_batch_in_flight() -> None:
    assert plan().devices["cuda:0"]["step"].graphs == 4 * 10**9, "one micro-batch a replica"
    three = plan("training.batch_size=16").devices["cuda:0"]["step"]
    assert three.graphs == 2 * 3 * 10**9 + 4 * 10**9, "four micro-batches, three in flight"
    kept = plan("training.batch_size=16", "agents.image.recompute=true").devices["cuda:0"]["step"]
    assert kept.graphs == 4 * 10**9


def test_the_reduction_has_all_gradients_one_bucket_and_a_share_of_the_averages() -> None:
    reduction = plan().devices["cuda:0"]["reduction"]
    assert reduction.buffers == 4 * 500_000_000 + 4 * SD3 // 4
    assert reduction.graphs == 0


def test_text_encoders_are_there_only_in_the_preparation_and_moments_only_after_it() -> None:
    preparation = plan().devices["cuda:4"]["preparation"]
    assert preparation.weights == 2 * OSP + 4 * 239_189_991 + 2 * MT5
    assert preparation.optimizer == 4 * OSP // 4
    assert preparation.graphs == 0, "targets are encoded when the text encoder has left"


def test_agents_on_one_gpu_add_up_in_every_phase() -> None:
    apart = plan()
    together = plan("agents.video.devices=[cuda:0,cuda:1,cuda:2,cuda:3]")
    for phase in PHASES:
        separate = apart.devices["cuda:0"][phase].total + apart.devices["cuda:4"][phase].total
        assert together.devices["cuda:0"][phase].total == separate


def test_pools_for_tensors_in_gpu_memory_are_there_in_every_phase() -> None:
    without, with_pools = plan(), plan("device_tensors=true")
    for device in ("cuda:0", "cuda:4"):
        for phase in PHASES:
            more = with_pools.devices[device][phase].total - without.devices[device][phase].total
            assert more == 64 << 20, (device, phase)


def test_a_frozen_agent_has_neither_gradients_nor_optimizer() -> None:
    costs = {**COSTS, "image": COSTS["image"].model_copy(update={"num_trained": 0})}
    frozen = plan("trains=[video]", costs=costs).devices["cuda:0"]["step"]
    assert (frozen.gradients, frozen.optimizer, frozen.ema, frozen.buffers) == (0, 0, 0, 0)
    assert frozen.weights == 2 * (SD3 + 83_819_683)


def test_adapters_are_counted_where_the_kind_tells_its_cost() -> None:
    costs = {**COSTS, "image": COSTS["image"].model_copy(update={"num_trained": 4_718_592})}
    adapted = plan("agents.image.trainable.scope=lora", costs=costs).devices["cuda:0"]["step"]
    assert adapted.gradients == 4 * 4_718_592


def test_peaks_agree_with_the_audit_of_the_published_models() -> None:
    """The audit's table has 24 and 37 GB with bfloat16 gradients; float32 ones add 2 bytes a parameter."""
    found = plan()
    for device, audited_gb, num_trained in (("cuda:0", 24, SD3), ("cuda:4", 37, OSP)):
        expected = audited_gb * 1e9 + 2 * num_trained
        assert found.largest(device)[1].total == pytest.approx(expected, rel=0.15)


def test_the_step_takes_the_time_of_its_operations() -> None:
    time = plan().time
    assert time is not None
    image_s = 140 / 600 + 18 / 600
    launches_s = 35_000 * 8e-6
    video_s = 140 / 600 + 250 / 330 + 400 / 600 + 870 / 270
    assert time.micro_batches_s == pytest.approx(launches_s + 18 / 600 + video_s, rel=1e-6)
    assert image_s < launches_s + 18 / 600, "so many small operations take the time of their launches"
    assert 0.03 < time.reduction_s < 0.5
    shares = busy_shares(plan())
    assert shares["cuda:4"] > 0.8
    assert shares["cuda:0"] < 0.15


def test_samples_are_shared_by_the_replicas() -> None:
    one = plan().samples_s
    assert one == pytest.approx(140 / 600 + 30_000 / 600 + 54_000 / 330, rel=1e-3)
    assert plan("samples.num_prompts=4").samples_s == one
    assert plan("samples.num_prompts=5").samples_s == pytest.approx(2 * (one or 0.0))
    assert plan("samples.enabled=false").samples_s is None


def test_both_agents_on_every_gpu_make_twice_the_samples_a_second() -> None:
    found = alternatives(plan())
    assert found[0].changes[:2] == ("replicas=8", "training.batch_size=8")
    now, better = plan().samples_per_second, found[0].plan.samples_per_second
    assert now is not None
    assert better is not None
    assert 1.7 < better / now < 2.0
    assert best(found, same_batch=True) is None, "no placement is faster with a batch of four"
    chosen = best(found, same_batch=False)
    assert chosen is not None
    again = plan(*chosen.changes)
    assert again.time == chosen.plan.time, "the printed changes give the plan that is promised"
    assert best(alternatives(again), same_batch=True) is None


def test_the_fast_configuration_is_the_one_that_the_plan_proves_best() -> None:
    config = load_config(ROOT / "configs" / "mora-osp-8xh100-fast.yaml", [])
    chosen = best(alternatives(plan()), same_batch=False)
    assert chosen is not None
    planned = chosen.plan.config
    assert (config.replicas, config.training.batch_size) == (planned.replicas, planned.training.batch_size)
    assert {name: agent.devices for name, agent in config.agents.items()} == {
        name: agent.devices for name, agent in planned.agents.items()
    }
    paper = load_config(ROOT / "configs" / "mora-osp-8xh100.yaml", [])
    same = {"devices": ()}
    assert {n: a.model_copy(update=same) for n, a in config.agents.items()} == {
        n: a.model_copy(update=same) for n, a in paper.agents.items()
    }, "everything else is the paper's"


def test_a_placement_that_does_not_fit_is_not_proposed() -> None:
    costs = {name: replace_graphs(cost, 30 * 10**9) for name, cost in COSTS.items()}
    assert all("all agents" not in each.told for each in alternatives(plan(costs=costs)))


def replace_graphs(cost: AgentCost, nbytes: int) -> AgentCost:
    return cost.model_copy(update={"step": cost.step.model_copy(update={"backward_nbytes": nbytes})})


def test_more_than_92_percent_of_a_device_is_refused_with_phase_and_parts() -> None:
    room = planned_gpu("cuda:4", NO_GPUS, "H100").nbytes
    static = plan().devices["cuda:4"]["step"].total - 10 * 10**9
    fits = {**COSTS, "video": replace_graphs(COSTS["video"], int(0.919 * room) - static)}
    plan(costs=fits).check_memory()
    too_large = {**COSTS, "video": replace_graphs(COSTS["video"], int(0.921 * room) - static)}
    with pytest.raises(PlacementError, match=r"^cuda:4: the phase `step` needs .*graphs .* of H100 \(assumed\)"):
        plan(costs=too_large).check_memory()
    plan(costs=too_large, gpu="H200").check_memory()


def test_a_kind_that_does_not_tell_its_cost_leaves_static_memory_and_no_time() -> None:
    unknown = plan(costs={"image": None, "video": COSTS["video"]})
    assert unknown.devices["cuda:0"]["step"].gradients == 4 * SD3
    assert unknown.time is None
    assert unknown.samples_s is None
    assert alternatives(unknown) == []


def test_no_time_is_planned_on_the_cpu_or_on_an_unknown_gpu() -> None:
    assert plan("agents.image.devices=[cpu]").time is None
    known = plan()
    odd = {device: replace(gpu, rates=None) for device, gpu in known.gpus.items()}
    assert replace(known, gpus=odd).time is None


def test_gpus_of_the_machine_are_planned_for_and_others_on_request() -> None:
    driver = CudaDriver(
        13000, (Gpu("NVIDIA H200", 150 << 30, "0000:00:00.0"), Gpu("an odd one", 8 << 30, "0000:1:0.0"))
    )
    here = planned_gpu("cuda:0", driver, None)
    assert (here.nbytes, here.is_assumed, here.rates is not None) == (150 << 30, False, True)
    assert planned_gpu("cuda:1", driver, None).rates is None
    assert planned_gpu("cuda:2", driver, None).is_assumed
    assert planned_gpu("cuda:0", driver, "a100").name == "A100"
    with pytest.raises(SettingsError, match="--gpu H900: expected one of H100, H200, A100"):
        planned_gpu("cuda:0", driver, "H900")


def test_the_json_file_has_devices_host_and_step() -> None:
    found = plan()
    host = host_needs(
        list(found.roles.values()), cpu_nbytes=0, num_replicas=4, shared_nbytes=8 << 30, disk=DiskRoom(3, 10, 100)
    )
    content = plan_content(found, host, alternatives(found))
    assert set(content["devices"]) == {f"cuda:{number}" for number in range(8)}
    for device in content["devices"].values():
        assert device["peak_bytes"] == sum(device["parts"].values())
        assert set(device["parts"]) == set(asdict(MemoryParts()))
        assert device["peak_bytes"] == max(phase["bytes"] for phase in device["phases"].values())
    assert content["step_s"] == found.time.step_s if found.time else None
    assert content["host"]["ram"]["peak_bytes"] == sum(content["host"]["ram"]["parts"].values())
    assert content["host"]["disk"] == {
        "needed_bytes": 30, "free_bytes": 100, "checkpoint_bytes": 10, "num_checkpoints": 3,
    }  # fmt: skip
    assert content["host"]["dev_shm"]["needed_bytes"] == 1 << 30, "NCCL exchanges gradients"
    assert content["best"]["set"][0] == "replicas=8"


def test_the_host_holds_every_shard_and_the_first_replicas_weights_while_a_checkpoint_is_written() -> None:
    found = plan()
    host = host_needs(list(found.roles.values()), cpu_nbytes=0, num_replicas=4, shared_nbytes=0, disk=DiskRoom(1, 1, 1))
    assert host.ram["checkpoint"] == (16 + 2 + 4) * (SD3 + OSP)


def test_devices_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    changes = ["replicas=1", "agents.image.devices=[cuda:10]", "agents.video.devices=[cuda:9]"]
    assert list(plan(*changes).devices) == ["cuda:9", "cuda:10"]
