"""A round's page: every set with its candidates side by side, who judged what, and how the model changed.

People count sets and candidates from 1, in the review as on this page; files and the manifest from 0.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mora_trainer.candidate_settings import PREVIEW_FILE
from rich.table import Table

from mora_launch.config.train_config import TrainConfig
from mora_launch.rounds.agreement import agreement_of_rounds
from mora_launch.rounds.curves import modulation_curves, read_steps
from mora_launch.rounds.evaluation import evaluated_steps, figures, prompt_of, videos
from mora_launch.rounds.evaluation_metrics import held_out_values
from mora_launch.rounds.judging.criteria import CRITERIA
from mora_launch.rounds.judging.judge import Verdict
from mora_launch.rounds.store import Plan, RoundFolder, SetDecision, SetFolder, write_once
from mora_launch.web.page_templates import page_templates

_TEMPLATES = page_templates("mora_launch.rounds")


def write_report(run: Path, folder: RoundFolder, config: TrainConfig) -> None:
    """Write the round's page as things are; written again when they have changed."""
    plan = folder.plan()
    if plan is None:
        return
    steps = evaluated_steps(run)
    page = _TEMPLATES.get_template("report.html").render(
        config=config,
        number=folder.number,
        facts=_facts(folder, plan),
        steps=steps,
        figures=[figures(run, step, config.clip) for step in steps],
        dimensions=config.synthesis.evaluation_metrics,
        values=held_out_values(run, steps),
        pairs=_pairs(run, steps),
        curves=modulation_curves(read_steps(run)),
        sets=[_set(folder.set(index), index, plan) for index in range(len(plan.sets))],
    )
    write_once(folder.report, page)


def _facts(folder: RoundFolder, plan: Plan) -> dict[str, str]:
    decisions = [folder.set(index).decision() for index in range(len(plan.sets))]
    counts = {
        "taken": sum(d is not None and d.chosen is not None for d in decisions),
        "dropped": sum(d is not None and d.chosen is None for d in decisions),
        "waiting for review": sum(d is None for d in decisions),
        "decided by a person": sum(d is not None and d.decided_by == "reviewer" for d in decisions),
    }
    weights = ", ".join(f"{name} {sha[:12]}" for name, sha in plan.weights_sha256.items())
    return {
        "model": f"after {plan.first_step} steps; {weights}",
        "sets": ", ".join(f"{number} {what}" for what, number in counts.items()),
        "judges": str(agreement_of_rounds([folder])),
    }


def _pairs(run: Path, steps: list[int]) -> list[tuple[str, list[str]]]:
    """Each held-out prompt with a link to its video after each of the steps."""
    columns = [videos(run, step) for step in steps]
    return [
        (prompt_of(row[0]), [_from(run, video.with_name(PREVIEW_FILE)) for video in row])
        for row in zip(*columns, strict=True)
    ]


def _from(run: Path, path: Path) -> str:
    """A link from a round's page to a file of the run."""
    return os.path.relpath(path, run / "rounds" / "01")


def _set(files: SetFolder, index: int, plan: Plan) -> dict[str, Any]:
    planned, decision = plan.sets[index], files.decision()
    return {
        "prompt": planned.prompt,
        "criterion": CRITERIA[planned.criterion].title,
        "candidates": [
            (seed, f"sets/{index:03d}/{files.candidate(number).name}/{files.preview(number).name}")
            for number, seed in enumerate(planned.seeds)
        ],
        "chosen": None if decision is None else decision.chosen,
        "decided": _decided(decision),
        "verdicts": [
            (verdict, _said(verdict)) for verdict in (files.verdict(0), files.verdict(1)) if verdict is not None
        ],
    }


def _decided(decision: SetDecision | None) -> str:
    if decision is None:
        return "waits for review"
    what = "dropped" if decision.chosen is None else f"candidate {decision.chosen + 1} taken"
    who = decision.decided_by if decision.reviewer is None else f"reviewer {decision.reviewer}"
    return f"{what}: {who}" + (f" ({decision.reason})" if decision.reason else "")


def _said(verdict: Verdict) -> str:
    if verdict.ranking is None:
        return "abstains"
    return " > ".join(str(number + 1) for number in verdict.ranking) if verdict.ranking else "none is good"


def summary_tables(run: Path, config: TrainConfig) -> list[Table]:
    """What a person sees at the end: rounds, then held-out prompts before and after."""
    rounds = Table("round", "sets", "taken", "dropped", "judges agree", "model", "report", box=None, pad_edge=False)
    for number in range(1, config.synthesis.num_rounds + 1):
        folder = RoundFolder(run, number)
        plan, trained = folder.plan(), folder.trained()
        if plan is None or trained is None:
            continue
        taken = int(trained["num_samples"])
        agreement = agreement_of_rounds([folder])
        model = f"{run}:{trained['step']}"
        row = (number, len(plan.sets), taken, len(plan.sets) - taken, agreement.share_text, model, folder.report)
        rounds.add_row(*map(str, row))
    steps = evaluated_steps(run)
    quality = Table("held-out prompts", *(f"after {step} steps" for step in steps), box=None, pad_edge=False)
    found = [figures(run, step, config.clip) for step in steps]
    for name in found[0] if found else ():
        quality.add_row(name, *(str(column[name]) for column in found))
    values = held_out_values(run, steps)
    for name in config.synthesis.evaluation_metrics:
        quality.add_row(name, *(str(column.get(name, "not measured")) for column in values))
    return [rounds, quality]
