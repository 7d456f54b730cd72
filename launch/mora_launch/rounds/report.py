"""A round's page: every set with its candidates side by side, who judged what, and how the model changed."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path

from mora_trainer.candidate_settings import PREVIEW_FILE
from rich.table import Table

from mora_launch.config.train_config import TrainConfig
from mora_launch.rounds.agreement import agreement_of_rounds
from mora_launch.rounds.curves import modulation_curves, read_steps
from mora_launch.rounds.evaluation import evaluated_steps, figures, videos
from mora_launch.rounds.judging.criteria import CRITERIA
from mora_launch.rounds.judging.judge import Verdict
from mora_launch.rounds.store import Plan, RoundFolder, SetDecision, SetFolder, write_once

_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:24px auto;max-width:1180px;padding:0 16px;color:#1b1f24;background:#fff}
h1{font-size:20px}h2{font-size:16px;margin-top:28px}.set{border-top:1px solid #d8dee4;padding:14px 0}
.row{display:flex;gap:10px;flex-wrap:wrap}.cell{width:200px}.cell video{width:100%;border:3px solid transparent;
image-rendering:pixelated;background:#111}.chosen video{border-color:#1a7f37}.muted{color:#656d76}
table{border-collapse:collapse}td,th{padding:3px 12px 3px 0;text-align:left;vertical-align:top}
pre{white-space:pre-wrap;background:#f6f8fa;padding:8px;font-size:12px}
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}.set{border-color:#30363d}pre{background:#161b22}
svg{background:#fff}}
"""


def write_report(run: Path, folder: RoundFolder, config: TrainConfig) -> None:
    """Write the round's page as things stand; written again when they have changed."""
    plan = folder.plan()
    if plan is None:
        return
    parts = [
        f"<h1>{escape(config.name)}: round {folder.number} of {config.synthesis.num_rounds}</h1>",
        _head(folder, plan),
        _before_and_after(run, config),
        f"<h2>Training</h2>{modulation_curves(read_steps(run)) or '<p class=muted>not trained yet</p>'}",
        "<h2>Sets</h2>",
        *(_set(folder.set(index), index, plan) for index in range(len(plan.sets))),
    ]
    title = f"<title>round {folder.number}</title>"
    page = f"<!doctype html><html lang=en><meta charset=utf-8>{title}<style>{_STYLE}</style>"
    write_once(folder.report, page + "\n".join(parts) + "</html>\n")


def _head(folder: RoundFolder, plan: Plan) -> str:
    decisions = [folder.set(index).decision() for index in range(len(plan.sets))]
    counts = {
        "taken": sum(d is not None and d.chosen is not None for d in decisions),
        "dropped": sum(d is not None and d.chosen is None for d in decisions),
        "waiting for review": sum(d is None for d in decisions),
        "decided by a person": sum(d is not None and d.decided_by == "reviewer" for d in decisions),
    }
    agreement = agreement_of_rounds([folder])
    rows = {
        "model": f"after {plan.first_step} steps; "
        + ", ".join(f"{name} {sha[:12]}" for name, sha in plan.weights_sha256.items()),
        "sets": ", ".join(f"{number} {what}" for what, number in counts.items()),
        "judges": str(agreement),
    }
    return "<table>" + "".join(f"<tr><th>{k}</th><td>{escape(v)}</td></tr>" for k, v in rows.items()) + "</table>"


def _before_and_after(run: Path, config: TrainConfig) -> str:
    steps = evaluated_steps(run)
    if not steps:
        return ""
    head = "".join(f"<th>after {step} steps</th>" for step in steps)
    found = [figures(run, step, config.clip) for step in steps]
    rows = "".join(
        f"<tr><th>{name}</th>" + "".join(f"<td>{column.get(name, '')}</td>" for column in found) + "</tr>"
        for name in found[0]
    )
    shown = "".join(
        f"<div class=cell><video src='{escape(_from(run, video.with_name(PREVIEW_FILE)))}' "
        "autoplay loop muted playsinline></video>"
        f"<div class=muted>after {step} steps</div></div>"
        for step in steps
        for video in videos(run, step)[:1]
    )
    return (
        "<h2>Held-out prompts, before and after</h2><p class=muted>Mean over prompts never trained on, with its "
        "95 % interval. Measured quality: higher is better, and none of it knows the prompt.</p>"
        f"<table><tr><th></th>{head}</tr>{rows}</table><div class=row>{shown}</div>"
    )


def _from(run: Path, path: Path) -> str:
    """A link from a round's page to a file of the run."""
    return os.path.relpath(path, run / "rounds" / "01")


def _set(files: SetFolder, index: int, plan: Plan) -> str:
    planned, decision = plan.sets[index], files.decision()
    verdicts = [verdict for verdict in (files.verdict(0), files.verdict(1)) if verdict is not None]
    cells = "".join(_cell(files, index, number, decision, seed) for number, seed in enumerate(planned.seeds))
    judged = "".join(_verdict(verdict) for verdict in verdicts)
    return (
        f"<div class=set><b>{index}. {escape(planned.prompt)}</b><div class=muted>criterion: "
        f"{escape(CRITERIA[planned.criterion].title)}</div><div class=row>{cells}</div><p>{_decided(decision)}</p>"
        f"<table>{judged}</table></div>"
    )


def _cell(files: SetFolder, index: int, number: int, decision: SetDecision | None, seed: int) -> str:
    chosen = " chosen" if decision is not None and decision.chosen == number else ""
    source = f"sets/{index:03d}/{files.candidate(number).name}/{files.preview(number).name}"
    return (
        f"<div class='cell{chosen}'><video src='{source}' autoplay loop muted playsinline></video>"
        f"<div class=muted>candidate {number}, seed {seed}</div></div>"
    )


def _decided(decision: SetDecision | None) -> str:
    if decision is None:
        return "waits for review"
    what = "dropped" if decision.chosen is None else f"candidate {decision.chosen} taken"
    who = decision.decided_by if decision.reviewer is None else f"reviewer {decision.reviewer}"
    return escape(f"{what}: {who}" + (f" ({decision.reason})" if decision.reason else ""))


def _verdict(verdict: Verdict) -> str:
    if verdict.ranking is None:
        said = "abstains"
    else:
        said = " > ".join(map(str, verdict.ranking)) if verdict.ranking else "none is good"
    raw = "\n--- asked again ---\n".join(verdict.raw)
    order = ", ".join(map(str, verdict.order))
    return (
        f"<tr><td>{escape(verdict.judge)}</td><td>{said}</td><td class=muted>{escape(verdict.note)}</td><td><details>"
        f"<summary>raw</summary>shown in the order {order}<pre>{escape(raw)}</pre></details></td></tr>"
    )


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
    return [rounds, quality]
