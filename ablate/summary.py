"""What a run found, for machines (summary.json) and for people (summary.md)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from ablate.ledger import BUDGETED
from ablate.record import primary, read_jsonl, step_means
from ablate.strategy import AXES
from ablate.text import table

if TYPE_CHECKING:
    from ablate.config import Config
    from ablate.ledger import Ledger

SCORER = "train/scorer/"  # before the names of a step scorer's figures in steps.jsonl


def summarise(
    folder: Path,
    config: Config,
    ledger: Ledger,
    origin: dict[str, Any],
    seconds: dict[str, float],
    batch_share: float,
    alarms: list[dict[str, Any]],
    metric: str,
) -> dict[str, Any]:
    """All figures of a finished run, from its own record and its ledger.

    seconds: wall time in all, in training steps, in evaluation. batch_share: largest share of the budget that
    one step took. alarms: of `Alarm.events`. metric: the name of the task's own score.
    """
    evaluations = read_jsonl(folder / "evaluations.jsonl")
    return {
        "strategy": config.strategy.name,
        "axes": {axis: getattr(config.strategy, axis)["_target_"] for axis in AXES},
        "seed": config.seed,
        "sampling_seed": config.seed if config.sampling_seed is None else config.sampling_seed,
        "task": OmegaConf.to_container(config.task),
        "cap": config.sampling.cap,
        "problems": evaluations[-1]["problems"],
        "samples": config.evaluate.samples,
        "metric": metric if primary(evaluations[-1]) == "score" else "pass@1",
        "steps": evaluations[-1]["step"],
        "budget": {
            "unit": ledger.unit,
            "declared": ledger.budget,
            "spent": ledger.spent,
            "largest_batch": batch_share,
        },
        "totals": ledger.totals(),
        "compute": ledger.by_purpose(),
        "start": {key: value for key, value in origin.items() if key != "account"},
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "before": _heldout(evaluations[0]),
        "after": _heldout(evaluations[-1]),
        "alarms": alarms,
        "scorer": step_means(folder, SCORER),
        "milestones": [
            {
                "share": row["milestone"],
                "flops": row["budget/flops"],
                "tokens": row["budget/tokens"],
                **_heldout(row),
            }
            for row in evaluations
        ],
    }


def _heldout(row: dict[str, Any]) -> dict[str, float]:
    return {key.removeprefix("heldout/"): value for key, value in row.items() if key.startswith("heldout/")}


def _accuracy(figures: dict[str, Any], name: str) -> str:
    error = figures[f"{name}_se"]  # None where a single cluster of problems leaves none
    return f"{100 * figures[name]:.1f} %" + ("" if error is None else f" ± {196 * error:.1f}")


def to_text(summary: dict[str, Any]) -> str:
    """The summary as Markdown that reads well on a terminal."""
    before, after = summary["before"], summary["after"]
    lines = [
        f"# {summary['strategy']}, seed {summary['seed']}",
        "",
        f"Held-out: {summary['problems']} problems x {summary['samples']} samples, "
        f"at most {summary['cap']} tokens; ± is a 95 % interval over problems.",
        "",
    ]
    figures = [["", "before", "after"]]
    labels = {"score": summary.get("metric", "score"), "pass@1": "pass@1"}
    for name, label in labels.items():
        if name in before:
            figures.append([label, *(_accuracy(each, name) for each in (before, after))])
    for name in sorted(before, key=lambda name: not name.startswith("score")):
        of_accuracy = name.startswith(("score_", "pass@", "majority@")) and not name.endswith("_se")
        if of_accuracy and name != "pass@1" and name in after:
            label = name.replace("score", labels["score"]).replace("_cap", ", cap ").replace("_", ", ")
            figures.append([label, f"{100 * before[name]:.1f} %", f"{100 * after[name]:.1f} %"])
    figures.append(["length (tokens)", f"{before['length']:.1f}", f"{after['length']:.1f}"])
    figures.append(["truncated", f"{100 * before['truncated']:.1f} %", f"{100 * after['truncated']:.1f} %"])
    for name in before:
        if name.startswith("behaviour/"):
            label = name.removeprefix("behaviour/").replace("_", " ") + " per answer"
            figures.append([label, f"{before[name]:.2f}", f"{after[name]:.2f}"])
    label = "KL to the start (nats per answer)"
    figures.append([label, f"{before['kl_per_answer']:.2f}", f"{after['kl_per_answer']:.2f}"])
    lines += table(figures[0], figures[1:])
    total = sum(account["flops"] for purpose, account in summary["compute"].items() if purpose in BUDGETED)
    compute = [["compute", "FLOPs", "logical FLOPs", "tokens", "share of budgeted"]]
    for purpose, account in summary["compute"].items():
        share = f"{100 * account['flops'] / total:.1f} %" if purpose in BUDGETED else "own account"
        compute.append(
            [
                purpose.replace("_", " "),
                f"{account['flops']:.3g}",
                f"{account['logical_flops']:.3g}",
                f"{account['tokens']:,.0f}",
                share,
            ]
        )
    for alarm in summary["alarms"]:
        end = f"to {alarm['cleared']}" if alarm["cleared"] else "on"
        lines += ["", f"Alarm ({alarm['kind']}) from step {alarm['step']} {end}: {alarm['text']}."]
    budget, seconds = summary["budget"], summary["seconds"]
    lines += ["", *table(compute[0], compute[1:]), ""]
    lines.append(
        f"Budget: {budget['spent']:.4g} of {budget['declared']:.4g} {budget['unit']} "
        f"({100 * (budget['spent'] / budget['declared'] - 1):+.2f} %) in {summary['steps']} steps."
    )
    lines.append(
        f"Time: {seconds['total']:.0f} s in all, {seconds['train']:.0f} s training "
        f"({summary['totals']['tokens'] / max(seconds['train'], 1e-9):,.0f} generated tokens/s, end to end), "
        f"{seconds['evaluate']:.0f} s evaluating"
        + (f", {seconds['mlflow']:.2f} s of MLflow's own work beside it." if "mlflow" in seconds else ".")
    )
    return "\n".join(lines) + "\n"
