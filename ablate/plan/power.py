"""What a design can find: the report's own statistics, before there is anything to report.

A contrast's variance components are those that an experiment on disk had for the same two arms, else the mean
over its contrasts, else `calibration.World`'s, which are assumptions. They are taken to the planned number of
problems and samples: the problems' part and the rest shrink with more problems, the rest also with more
samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.plan.content import Contrast
from ablate.report import contrasts
from ablate.report.calibration.world import World, pooled
from ablate.report.looks import Looks
from ablate.report.statistics import Components, chances, detectable, seeds_for
from ablate.types import UserError

SAMPLES = 8  # per problem, for which World's components hold


@dataclass(frozen=True)
class Pilot:
    """Where variances come from. own: of the arms at two places, see `_place`; others: of all other pairs.
    problems, samples: of the experiment; seeds: the fewest behind one of them. task, model: its settings,
    None for the assumptions."""

    name: str
    own: dict[tuple[Any, Any], Components]
    others: Components
    problems: int
    samples: int
    seeds: int | None
    task: Any = None
    model: Any = None


def assumed() -> Pilot:
    """No experiment: the assumptions."""
    world = World()
    return Pilot("assumed", {}, world.components, sum(world.sizes), SAMPLES, None)


def pilot(folder: Path) -> Pilot:
    """From an experiment on disk. Raises UserError if nothing can be measured there."""
    from ablate.report.assemble import assemble
    from ablate.report.calibration.world import MARGIN
    from ablate.report.loading import load

    report = assemble(load(folder), MARGIN)
    world = pooled(report)
    if world is None:
        raise UserError(
            f"pilot={folder} has no two arms with two seeds in common: no variance can be measured there"
        )
    measured = [
        (claim.weights, claim.effect, parts)
        for claim in report.claims
        if claim.effect and (parts := claim.effect.estimate.components)
    ]
    own = {(_place(w[0][0]), _place(w[1][0])): parts for w, _, parts in measured if len(w) == 2}
    return Pilot(
        str(folder),
        own,
        world.components,
        report.problems,
        report.samples,
        min(len(effect.seeds) for _, effect, _ in measured),
        report.task,
        report.model,
    )


def _place(arm: str) -> Any:
    """The cell of the 2x2x2 that an arm fills, by whatever name, else its name."""
    return contrasts.CELL_OF.get(arm, arm)


def planned(parts: Components, source: Pilot, problems: int, samples: int, clusters: int) -> Components:
    """The components with other numbers of problems and of samples."""
    fewer = source.problems / problems
    return Components(
        parts.seed, parts.problem * fewer, parts.rest * fewer * source.samples / samples, clusters
    )


def power(
    seeds: Mapping[str, Sequence[int]],
    roles: Mapping[str, str],
    source: Pilot,
    margin: float,
    problems: int,
    samples: int,
    clusters: int,
    ladder: Iterable[str] = (),
    looks: Looks | None = None,
) -> list[Contrast]:
    """The headline contrasts of a design. seeds, roles: by arm. ladder: as in `contrasts.families`. looks: if
    declared; what is foreseen is then what the last one gives alone."""
    found = []
    for family in contrasts.families(roles, ladder):
        last = looks.confidence(len(looks.at), len(family)) if looks and family else None
        for contrast in family:
            arm, other = contrast.pair or ("", "")
            parts = source.own.get((_place(arm), _place(other)))
            where = source.name if parts or source.seeds is None else f"{source.name}, mean of its contrasts"
            components = planned(parts or source.others, source, problems, samples, clusters)
            common = len(set(seeds[arm]) & set(seeds[other]))
            some = common > 1
            count = len(family)
            found.append(
                Contrast(
                    contrast.suspect,
                    contrast.on,
                    arm,
                    other,
                    common,
                    count,
                    components.seed**0.5,
                    components.problem**0.5,
                    components.rest**0.5,
                    where,
                    detectable(margin, components, common, count, last) if some else None,
                    chances(0.0, margin, components, common, count, last)["not needed"] if some else None,
                    seeds_for("not needed", 0.0, margin, components, count, last),
                    seeds_for("helps", margin, margin, components, count, last),
                )
            )
    return found


def doubt(seeds: int) -> tuple[float, float]:
    """Between which multiples of it the true standard deviation lies if one was measured on so many seeds,
    with 95 % confidence."""
    from scipy.special import chdtri

    df = seeds - 1
    return float((df / chdtri(df, 0.025)) ** 0.5), float((df / chdtri(df, 0.975)) ** 0.5)
