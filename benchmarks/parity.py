"""`mora bench parity`: are gradients across processes the gradients of one process, bit for bit?

Every parameter of all agents and every z_i, from the chain with a process for each agent and from the same chain in one
process. With `--steps N`, both then take N steps of joint training on the same batch, whose losses are compared.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from mora_launch.config.train_config import TrainConfig, load_config
from mora_launch.environments.venvs import ROOT
from mora_training.optimizer_agent import PARTICIPANT
from safetensors.torch import load_file

from benchmarks.chain_session import DEADLINE_S, ChainSession, SingleProcessTwin, chain_session
from benchmarks.figures import add_json_option, add_set_option, publish

PROBE = "probe-parity"


def measure(config: TrainConfig, path: Path, num_steps: int = 0) -> dict[str, Any]:
    """Run both chains once on the same batch and compare every gradient; then take steps, and tell their losses."""
    with chain_session(config, path) as session:
        remote = remote_gradients(session)
        with SingleProcessTwin(session.write_spec(path)) as twin:
            twin.ask(do="gradients", to=str(path / "single.safetensors"))
            reports = twin.ask(do="steps", count=num_steps)["reports"]
        batches = session.batches()
        losses = [session.step(number, batches).loss for number in range(num_steps)]
    found = compare(remote, load_file(path / "single.safetensors"))
    return {
        "agents": list(config.chain_names),
        **found,
        "losses": losses,
        "losses_of_one_process": [report["loss"] for report in reports],
    }


def remote_gradients(session: ChainSession) -> dict[str, torch.Tensor]:
    """Gradients of the chain over servers, named as the single-process chain names them."""
    embeddings = session.accumulate(session.batches())
    found = {f"z.{name}": gradient for name, gradient in embeddings.items()}
    for name, client in session.clients.items():
        client.call(PARTICIPANT, "dump_gradients", {"folder": PROBE}, deadline_s=DEADLINE_S)
        client.call(PARTICIPANT, "abandon", {}, deadline_s=DEADLINE_S)
        gradients = load_file(session.directory.checkpoints / PROBE / f"{name}.safetensors")
        found.update({f"{name}.{parameter}": gradient for parameter, gradient in gradients.items()})
    return found


def compare(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Largest differences over all tensors; a name that only one side has counts as a difference.

    A relative difference is that of a whole tensor: its largest difference over its largest value, or over a
    thousandth of the agent's largest value if that is more, because some gradients are zero but for rounding.
    """
    missing = sorted(set(ours) ^ set(theirs))
    common = sorted(set(ours) & set(theirs))
    differences = {name: float((ours[name].double() - theirs[name].double()).abs().max()) for name in common}
    worst = max(differences, key=lambda name: differences[name])
    scales = tensor_scales(theirs)
    relative = [differences[name] / scales[name] for name in common]
    identical = not missing and all(torch.equal(ours[name], theirs[name]) for name in common)
    num_nonzero = sum(bool(ours[name].any()) for name in common)
    return {
        "max_abs_grad_diff": differences[worst],
        "max_rel_grad_diff": max(relative),
        "num_parameters_compared": len(common),
        "num_with_nonzero_gradient": num_nonzero,
        "bit_identical": identical,
        "worst": worst,
        "only_on_one_side": missing,
        "torch": torch.__version__,
    }


def tensor_scales(gradients: dict[str, torch.Tensor]) -> dict[str, float]:
    """What differences of each tensor are relative to, by name; never zero."""
    values = {name: float(gradient.double().abs().max()) for name, gradient in gradients.items()}
    of_agent: dict[str, float] = {}
    for name, value in values.items():
        agent = name.removeprefix("z.").partition(".")[0]
        of_agent[agent] = max(value, of_agent.get(agent, 0.0))
    floors = {name: 1e-3 * of_agent[name.removeprefix("z.").partition(".")[0]] for name in values}
    return {name: max(value, floors[name]) or 1.0 for name, value in values.items()}


def main() -> None:
    """Command line of the measurement."""
    parser = argparse.ArgumentParser(prog="mora bench parity", description=__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "tiny.yaml")
    parser.add_argument(
        "--steps", type=int, default=0, help="of joint training on the same batch, after the comparison"
    )
    add_set_option(parser)
    add_json_option(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mora-parity-") as folder:
        result = measure(load_config(arguments.config, arguments.changes), Path(folder) / "run", arguments.steps)
    publish(result, arguments.json)
    raise SystemExit(0 if result["bit_identical"] else 1)


if __name__ == "__main__":
    main()
