"""The report in MLflow, beside the runs that it is about.

One MLflow run per experiment's folder: verdicts as tags, effects and accuracies as metrics, the page and its
figures as artifacts. Reporting again replaces it, so that nothing of an earlier report is left; the earlier
one goes to MLflow's trash. As with the runs, the files are the truth, and MLflow may be away.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from ablate.report.content import Report
from ablate.report.runs import Experiment
from ablate.report.wording import UNITS, amount, sentences
from ablate.types import UserError

OFF = "none"
DEADLINE = 60.0  # seconds for all of it
FILES = ("report.html", "report.md", "verdict.json")
KEY = "ablate.report"  # the tag by which an earlier report is found


def target(experiment: Experiment, told: str | None) -> tuple[str, str] | None:
    """(tracking URI, MLflow experiment) for the report: those of most runs; None if no run has any.

    told: a URI to use instead, or "none". Raises UserError if MLflow cannot use what was told.
    """
    from ablate.tracking.store import resolve_uri

    results = experiment.folder.resolve().parent  # the default store is found from where the runs are now
    tracked = [each for run in experiment.runs if (each := run.config.get("tracking") or {}).get("enabled")]
    names = Counter(str(each.get("experiment", "ablate")) for each in tracked)
    name = names.most_common(1)[0][0] if names else "ablate"
    if told == OFF or (told is None and not tracked):
        return None
    if told is not None:
        return resolve_uri(told, results), name
    return resolve_uri(Counter(each.get("uri") for each in tracked).most_common(1)[0][0], results), name


def send(report: Report, folder: Path, uri: str, experiment: str) -> str:
    """Log what lies in the experiment's folder, and say in one line how it went. Nothing that happens to
    MLflow is raised."""
    from ablate.tracking.push import reason
    from ablate.tracking.store import where_to_look

    try:
        return f"MLflow: {where_to_look(uri, [_send(report, folder, uri, experiment)])}"
    except Exception as error:  # SQL drivers, HTTP and cloud storage each raise their own
        return f"MLflow was not reachable ({reason(error)}): nothing is lost; the same command sends it"


def _send(report: Report, folder: Path, uri: str, experiment: str) -> tuple[str, str]:
    """(experiment id, run id)"""
    from mlflow.entities import Metric, Param

    from ablate.tracking.push import PARAM_LENGTH, mlflow_name
    from ablate.tracking.store import connect, find_experiment, sqlite_path

    deadline = time.monotonic() + DEADLINE
    client = connect(uri)
    experiment_id = find_experiment(client, uri, experiment, sqlite_path(uri) or folder)
    place = sha256(str(folder.resolve()).encode()).hexdigest()[:32]
    earlier = client.search_runs([experiment_id], f"tags.`{KEY}` = '{place}'")
    tags = {
        KEY: place,
        "experiment": report.experiment,
        "mlflow.note.content": "\n\n".join(sentences(report)),
    }
    tags |= {f"verdict.{mlflow_name(key)}": word for key, word in _verdicts(report)}
    run = client.create_run(experiment_id, tags=tags, run_name=f"{report.experiment}/report").info.run_id
    params = {
        "margin": f"{report.margin:g}",
        "budget": f"{amount(report.budget)} {UNITS[report.unit]}",
        "metric": report.metric,
        "seeds": " ".join(map(str, report.seeds)),
        "problems": str(report.problems),
        "arms": " ".join(arm.name for arm in report.arms),
    }
    client.log_batch(
        run,
        metrics=[Metric(mlflow_name(key), value, _now(), 0) for key, value in _metrics(report)],
        params=[Param(key, value[:PARAM_LENGTH]) for key, value in params.items()],
        synchronous=True,
    )
    for path in [*(folder / each for each in FILES), *sorted((folder / "figures").glob("*.*g"))]:
        if time.monotonic() > deadline:
            raise UserError("not everything could be sent in time")
        client.log_artifact(run, str(path), None if path.parent == folder else path.parent.name)
    client.set_terminated(run, "FINISHED")
    for old in earlier:
        client.delete_run(old.info.run_id)
    return experiment_id, run


def _verdicts(report: Report) -> Iterator[tuple[str, str]]:
    for key, claim in _keys(report):
        yield key, claim.word


def _metrics(report: Report) -> Iterator[tuple[str, float]]:
    """Effects with their intervals in points, accuracies in percent."""
    for key, claim in _keys(report):
        if claim.effect is not None:
            yield f"effect/{key}", 100 * claim.effect.estimate.value
            for end, bound in zip(("low", "high"), claim.effect.interval or (), strict=False):
                yield f"effect/{key}_{end}", 100 * bound
    for arm in report.arms:
        if arm.after is not None:
            yield f"accuracy/{arm.name}", 100 * arm.after


def _keys(report: Report):
    """`search`, and `search_on_essay` for what is added to the essay's recipe."""
    for claim in report.claims:
        yield claim.suspect + ("_on_essay" if "essay" in claim.on else ""), claim


def _now() -> int:
    return round(1000 * time.time())
