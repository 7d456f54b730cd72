"""Gradients and steps across two processes equal those of one process, and a wrong gradient is noticed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mora_runtime import Client, TensorRef
from mora_trainer.chain.stopwatch import Stopwatch
from mora_trainer.settings import PipelineSettings
from mora_training.optimizer_agent import PARTICIPANT
from safetensors.torch import load_file

from benchmarks.chain_session import DEADLINE_S, ChainSession, SingleProcessTwin
from benchmarks.parity import compare, remote_gradients

pytestmark = [pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning"), pytest.mark.timeout(600)]


def weights(session: ChainSession, probe: str) -> dict[str, torch.Tensor]:
    """Parameters of the servers, and every z."""
    assert session.modulation is not None
    found = {f"z.{name}": z.clone() for name, z in session.modulation.all_embeddings().items()}
    for name, client in session.clients.items():
        client.call(PARTICIPANT, "save", {"folder": probe}, deadline_s=DEADLINE_S)
        assert client.call(PARTICIPANT, "saved", {"wait_s": DEADLINE_S}, deadline_s=DEADLINE_S).values["done"]
        path = session.directory.checkpoints / probe / name / "weights" / "diffusion_pytorch_model.safetensors"
        found.update({f"{name}.{parameter}": value for parameter, value in load_file(path).items()})
    return found


def single_gradients(twin: SingleProcessTwin, path: Path) -> dict[str, torch.Tensor]:
    twin.ask(do="gradients", to=str(path))
    return load_file(path)


def test_every_gradient_is_bit_identical_to_one_process(
    session: ChainSession, twin: SingleProcessTwin, tmp_path: Path
) -> None:
    result = compare(remote_gradients(session), single_gradients(twin, tmp_path / "single.safetensors"))
    assert result["bit_identical"], result
    assert result["max_abs_grad_diff"] == 0.0
    assert result["num_parameters_compared"] > 120
    # all but the parts of the last SD3 block that cannot reach the image
    assert result["num_with_nonzero_gradient"] >= result["num_parameters_compared"] - 4


@pytest.mark.parametrize("inputs_first", [False, True])
@pytest.mark.parametrize("max_in_flight", [1, 2, 8])
def test_gradients_are_bit_identical_for_any_overlap_of_micro_batches(
    session: ChainSession, monkeypatch: pytest.MonkeyPatch, max_in_flight: int, inputs_first: bool
) -> None:
    expected = remote_gradients(session)
    settings = PipelineSettings(max_in_flight=max_in_flight, inputs_first=inputs_first)
    monkeypatch.setattr(session.chain, "pipeline", settings)
    assert session.config.training.batch_size // session.config.training.micro_batch_size >= 2
    result = compare(remote_gradients(session), expected)
    assert result["bit_identical"], result


def replace_output_gradient(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[torch.Tensor], torch.Tensor]
) -> list[torch.Tensor]:
    """Send `change(dL/dO_1)` to the image agent in place of dL/dO_1; returns a list of those that it would have got."""
    honest, honest_gradients = Client.submit_backward, []

    def faulty(self: Client, ticket: Any, grads: Any, **options: Any) -> Any:
        honest_gradients.append(grads["images"].tensor().clone())
        return honest(self, ticket, {**grads, "images": change(honest_gradients[-1])}, **options)

    monkeypatch.setattr(Client, "submit_backward", faulty)
    return honest_gradients


@pytest.fixture
def broken_backward(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The image agent's gradient dropped, doubled, or taken from the previous micro-batch."""
    fault: str = request.param
    previous: list[torch.Tensor] = []

    def wrong(gradient: torch.Tensor) -> torch.Tensor:
        stale = previous[-1] if previous else gradient
        previous.append(gradient)
        return {"dropped": torch.zeros_like(gradient), "doubled": 2 * gradient, "stale": stale}[fault]

    replace_output_gradient(monkeypatch, wrong)
    return fault


@pytest.mark.parametrize("broken_backward", ["dropped", "doubled", "stale"], indirect=True)
def test_a_wrong_gradient_is_caught_within_one_step(
    session: ChainSession, twin: SingleProcessTwin, broken_backward: str, tmp_path: Path
) -> None:
    result = compare(remote_gradients(session), single_gradients(twin, tmp_path / "single.safetensors"))
    assert not result["bit_identical"], f"a {broken_backward} gradient went unnoticed"


def test_the_gradient_of_an_image_parameter_agrees_with_finite_differences(
    session: ChainSession, twin: SingleProcessTwin
) -> None:
    name = "proj_out.weight"
    gradient = remote_gradients(session)[f"image.{name}"].view(-1)
    index = int(gradient.abs().argmax())
    delta = 5e-3
    losses = [
        twin.ask(do="loss_at", agent="image", parameter=name, index=index, delta=step)["loss"]
        for step in (-delta, delta)
    ]
    assert losses[0] != losses[1], "the video loss must depend on the image agent's parameters"
    measured = (losses[1] - losses[0]) / (2 * delta)
    assert measured == pytest.approx(float(gradient[index]), rel=0.1)


def test_the_coordinator_maps_no_tensor_of_the_chain(session: ChainSession, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, mapped = TensorRef.tensor, []

    def noted(self: TensorRef) -> torch.Tensor:
        tensor = honest(self)
        mapped.append(tuple(tensor.shape))
        return tensor

    monkeypatch.setattr(TensorRef, "tensor", noted)
    remote_gradients(session)
    shapes_of_z = {tuple(z.shape) for z in session.embeddings.values()}
    assert set(mapped) <= {(), *shapes_of_z}, "losses and dL/dz alone; O_1 and dL/dO_1 pass through by reference"


def test_the_norm_of_the_image_gradient_comes_with_the_answer(
    session: ChainSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed_on = replace_output_gradient(monkeypatch, torch.clone)
    try:
        results = list(session.chain.run(session.batches(0), session.embeddings, Stopwatch()))
    finally:
        for client in session.clients.values():
            client.call(PARTICIPANT, "abandon", {}, deadline_s=DEADLINE_S)
    expected = [float(gradient.norm()) for gradient in passed_on]
    assert [result.output_gradient_norms["image"] for result in results] == pytest.approx(expected, rel=1e-5)
    assert all(expected)


def test_a_non_finite_gradient_skips_the_step_everywhere_and_changes_nothing(
    session: ChainSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = weights(session, "probe-before")
    replace_output_gradient(monkeypatch, lambda gradient: torch.full_like(gradient, torch.nan))
    report = session.step(0)
    assert report.skipped
    after = weights(session, "probe-after")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_one_step_is_algorithm_1_written_out_by_hand(
    session: ChainSession, twin: SingleProcessTwin, tmp_path: Path
) -> None:
    report = session.step(1, session.batches(0))
    by_hand = twin.ask(do="steps", count=1)["reports"][0]
    twin.ask(do="state", to=str(tmp_path / "state.safetensors"))
    expected, found = load_file(tmp_path / "state.safetensors"), weights(session, "probe-step")
    assert not report.skipped
    assert report.loss == pytest.approx(by_hand["loss"], abs=1e-7)
    assert report.gradient_norm == pytest.approx(by_hand["gradient_norm"], rel=1e-6)
    assert report.alphas == pytest.approx(by_hand["alphas"], rel=1e-7)
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= 1e-6 * max(1.0, float(value.abs().max())), name
    # alpha_i comes from the updated z_i, not from the one that the step began with
    norms = {name: float(found[f"z.{name}"].double().norm()) for name in session.embeddings}
    assert report.alphas == pytest.approx({name: norm / 2 for name, norm in norms.items()}, rel=1e-9)


def test_alpha_scales_the_learning_rate_and_not_the_gradient(session: ChainSession) -> None:
    """AdamW ignores the scale of a gradient, so an alpha on the gradient would change nothing."""
    before = weights(session, "probe-before")
    report = session.step(2, session.batches(0))
    after = weights(session, "probe-after")
    rates = session.rates().parameters
    for name in session.embeddings:
        assert report.alphas[name] > 4, "a step that ignores alpha is far from what is expected"
        moved = [
            (after[key] - before[key]).abs().max() for key in before if key.startswith(f"{name}.") and "proj_out" in key
        ]
        largest = float(max(moved))
        assert largest == pytest.approx(report.alphas[name] * rates[name], rel=0.1)
