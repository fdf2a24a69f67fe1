"""One run, from config to result.

problems -> source -> verify -> recovery -> verify -> credit -> gradient -> ledger -> (at milestones)
evaluate -> record -> summary.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import OmegaConf

from ablate import __version__, ranks, runtime
from ablate import config as configuration
from ablate.checkpoint import disk, latest, load_state, load_tensors
from ablate.experiments import ASIDE
from ablate.ledger import UNITS, Account, Ledger
from ablate.owner import NAME as OWNER
from ablate.owner import Busy, Lock, Lost, owned, owner
from ablate.randomness import hash64
from ablate.record import Record, Unrecorded, check_format, read_json, read_jsonl, status
from ablate.refusals import check_budget, check_model, check_problems, check_sharding, check_task
from ablate.strategy import AXES, Strategy
from ablate.tasks.streams import permuted
from ablate.types import Group, Task, UserError

if TYPE_CHECKING:
    from ablate.config import Config
    from ablate.models.policy import Policy
    from ablate.rows import Row


def run(config: Config, quiet: bool = False) -> Path:
    """Do what the config says; returns the run's folder. A mistake of the user's is a UserError.

    quiet: the summary is not printed.
    """
    ranks.check(config.learner.problems, config.learner.bf16)
    folder = configuration.run_folder(config)
    parts = {key: configuration.build(getattr(config, key)) for key in ("task", "model", "engine")}
    axes = {axis: configuration.build(getattr(config.strategy, axis)) for axis in AXES}
    strategy = Strategy(**axes)
    check_sharding(config, parts["model"])
    check_model(config, parts["task"], parts["model"])  # before a task asks the hub for its problems
    check_task(parts["task"])
    check_problems(config, parts["task"])
    for part in axes.values():
        if check := getattr(part, "check", None):
            check(parts["task"])
    parts["engine"].check()
    check_budget(config, parts["task"], parts["model"], strategy)
    ranks.start(runtime.device(getattr(parts["model"], "device", "auto")).type == "cpu")
    with ExitStack() as held, ranks.watching():
        lock = Lock(folder)
        if ranks.first(lambda: _claim(config, folder, quiet, held, lock)):
            record: Record
            if ranks.rank() == 0:
                record = Record(folder)
                record.guard = lock.check
            else:
                record = Unrecorded(folder)
            _Run(config, record, strategy, quiet, **parts).go()
    ranks.leave()
    return folder


def load_policy(config: Config, task: Task, model: Any, progress: bool) -> tuple[Policy, dict[str, Any]]:
    """The policy that a run starts from, on its device and in its precision, and where it comes from."""
    policy, origin = model.load(task, config.seed, Path(config.paths.cache), progress)
    policy.model.to(runtime.device(getattr(model, "device", "auto")))
    policy.bf16 = config.learner.bf16
    return policy, origin


def _make_start(config: Config, task: Task, model: Any) -> None:
    """Leave the warm start in the cache."""
    model.load(task, config.seed, Path(config.paths.cache), config.progress)


def _claim(config: Config, folder: Path, quiet: bool, held: ExitStack, lock: Lock) -> bool:
    """May this command write into the folder? False if the run is there already, finished.

    Until `held` is closed, nobody else may. Raises Busy if another process is at work there, UserError if it
    takes resume=true or fresh=true.
    """
    if working := owner(folder):
        raise Busy(folder, working)
    found = status(folder)
    if found != "new":
        check_format(folder)
    if config.fresh and found != "new":
        aside = next(
            p for i in range(1, 10**6) if not (p := folder.with_name(f"{folder.name}{ASIDE}{i}")).exists()
        )
        with owned(folder):
            os.replace(folder, aside)
            (aside / OWNER).unlink()
        print(f"the earlier run is kept in {aside}", file=sys.stderr)
    elif found == "finished":
        if quiet:
            return False
        from ablate.summary import to_text

        print(to_text(read_json(folder / "summary.json")))
        print(f"This run is finished already; the above is its record ({folder}). fresh=true runs it again.")
        return False
    elif found in ("unfinished", "failed") and read_jsonl(folder / "evaluations.jsonl") and not config.resume:
        raise UserError(
            f"{folder} holds a run that did not finish: resume=true goes on, fresh=true starts again"
        )
    elif found != "new" and (folder / "meta.json").exists():
        begun = read_json(folder / "meta.json").get("processes", 1)
        if begun != ranks.count():
            raise UserError(
                f"{folder} was begun with processes={begun}, and this launch has {ranks.count()}, which draw "
                f"otherwise; nearest: launch {begun}, or fresh=true"
            )
    Record(folder)  # the folder can be written to
    held.enter_context(lock.acquire())
    return status(folder) != "finished"  # by another process, since


class _Run:
    """What a run is made of."""

    def __init__(
        self,
        config: Config,
        record: Record,
        strategy: Strategy,
        quiet: bool,
        task: Task,
        model: Any,
        engine: Any,
    ) -> None:
        self.config, self.record, self.strategy, self.quiet = config, record, strategy, quiet
        self.task, self.model, self.engine = task, model, engine
        self.started = time.monotonic()
        self.mirror: Any = None
        self.stop = runtime.StopRequest()

    def _prepare(self) -> None:
        """Everything until the first step; what fails in here is a failure of the run."""
        config, record, task, model, engine = self.config, self.record, self.task, self.model, self.engine
        runtime.quiet_libraries()
        runtime.set_threads(config.threads)
        runtime.keep_memory()
        label = f"{config.strategy.name}/s{config.seed}"
        resolved = cast(dict[str, Any], OmegaConf.to_container(cast(Any, config), resolve=True))
        del resolved["paths"]  # where this machine keeps things
        record.write_config(resolved)
        tags = {"experiment": config.name, "strategy": config.strategy.name, "seed": str(config.seed)}
        record.write_meta(label, tags, runtime.gpus())
        self.checkpoint = ranks.first(lambda: latest(record.checkpoints))
        self.state = load_state(self.checkpoint) if self.checkpoint else None
        record.truncate_to(self.state["record"] if self.state else {})
        self.mirror = _mirror(config, record.folder) if ranks.rank() == 0 else None
        shown = config.progress and ranks.rank() == 0
        if ranks.count() > 1 and hasattr(model, "warm_start"):  # once, and not by ranks that wait for it
            ranks.first(lambda: runtime.apart(_make_start, config, task, model))
        self.policy, self.origin = load_policy(config, task, model, shown)
        unit, amount = next((u, a) for u in UNITS if (a := getattr(config.budget, u)) is not None)
        self.ledger = Ledger(unit, amount)
        self.ledger.bring("warm_start", Account(**self.origin["account"]))
        spent = config.tuning
        self.ledger.bring("tuning", Account(spent.flops, spent.logical_flops, spent.tokens))
        engine.start(self.policy, self.ledger)
        from ablate.lab import Laboratory
        from ablate.progress import Bar

        self.lab = Laboratory(
            task,
            self.policy,
            engine,
            self.ledger,
            cap=config.sampling.cap,
            temperature=config.sampling.temperature,
            sampling_seed=config.seed if config.sampling_seed is None else config.sampling_seed,
            start=lambda: load_policy(config, task, model, progress=False)[0],
        )
        for part in (task, *(getattr(self.strategy, axis) for axis in AXES)):
            if ready := getattr(part, "ready", None):
                ready(self.lab)
        self.bar = Bar(label) if shown else None
        self.figures: dict[str, float] = {}
        self.stream = ""  # hash of the batch's problems: arms with the same seed agree on it

    def rollout(self, batch: int) -> list[Group]:
        """The credited groups of a batch, of this rank's problems; their figures are kept for the record."""
        size = self.config.learner.problems
        stream = range(batch * size, (batch + 1) * size)
        seed, few = self.config.seed, self.config.learner.distinct_problems
        places = [i if few is None else permuted(seed, "distinct", i, few) for i in stream]
        problems = [self.task.problem(seed, "train", i) for i in places]
        self.stream = f"{hash64(*(problem.id for problem in problems)):016x}"
        self.lab.begin(batch)
        groups = self.strategy.rollout([self.lab.problem(p) for p in problems[ranks.share(size)]], self.lab)
        self.figures = ranks.mean(self.lab.report(groups))
        self.engine.rest()
        return groups

    def _at_the_start(self, rows: Sequence[Row]) -> list[tuple[float, ...]]:
        """Log-probabilities of rows' completions by the policy as it was before training."""
        return self.engine.score(
            [row.prompt for row in rows],
            [row.completion for row in rows],
            purpose="score",
            temperature=self.config.sampling.temperature,
            policy=self.lab.reference(),
        )

    def go(self) -> None:
        """Train to the budget with everything recorded, then summarise."""
        try:
            self._prepare()
            with self.stop.listening(), ranks.watching():
                conductor = self._train()
            if self.stop.asked and not conductor.finished:
                raise KeyboardInterrupt
            if ranks.rank() == 0:
                self._summarise(conductor)
        except BaseException as error:
            # the rank that failed first has said why itself, if it could; else the first one says it
            lost = isinstance(error, ranks.RankLost)
            told = lost and (ranks.rank() > 0 or status(self.record.folder) == "failed")
            if not (told or isinstance(error, KeyboardInterrupt | Lost)):
                who = f"rank {ranks.rank()} of {ranks.count()}: " if ranks.count() > 1 else ""
                message = f"{who}{type(error).__name__}: {error}"
                _or_say(lambda: self.record.fail(message), error)
            _or_say(self.record.close, error)
            if self.mirror is not None:
                self.mirror.close(deadline_seconds=5.0)
            if isinstance(error, UserError):
                raise  # it says all there is to say
            if ranks.rank() == 0:
                print(
                    f"\n{self.record.folder}: all steps up to the last checkpoint are kept; "
                    "the same command with resume=true goes on from there",
                    file=sys.stderr,
                )
            from ablate.learner import NonFiniteLoss

            if isinstance(error, NonFiniteLoss):
                good = latest(self.record.checkpoints) or "none yet"
                raise UserError(
                    f"{error}: stopped before the weights were touched; last good checkpoint: {good}; "
                    f"learner.lr={self.config.learner.lr:g} may be too large"
                ) from error
            raise

    def _train(self) -> Any:
        from ablate.conduct import Conductor
        from ablate.evaluate import evaluate, heldout_problems
        from ablate.learner import Learner, Misaligned

        config = self.config
        problems = heldout_problems(self.task, config.evaluate, config.seed)
        conductor = Conductor(
            config,
            self.record,
            self.ledger,
            self.bar,
            self.stop,
            evaluate=lambda longest: evaluate(
                self.engine,
                self.policy,
                self.task,
                problems,
                config.evaluate,
                config.sampling.cap,
                longest,
                self.lab.reference(),
                self.lab.examine,
            ),
            figures=lambda: (self.stream, self.figures),
            updated=self.engine.weights_changed,
        )
        made: type[Learner] = Learner
        if config.learner.sharding == "full":
            from ablate.sharded import ShardedLearner as made
        learner = conductor.learner = made(
            self.policy,
            config.learner,
            config.sampling,
            self.ledger,
            self.record.checkpoints,
            self.rollout,
            callbacks=[conductor],
            state=conductor.state,
            tensors=self.lab.state_dict,
            reference=self._at_the_start,
            seed=config.seed,
        )
        if self.state:
            try:
                self.lab.load_state_dict(load_tensors(cast(Path, self.checkpoint)))
                conductor.restore(self.state)
                learner.restore(self.state)
            except KeyError as error:
                raise UserError(
                    f"{self.checkpoint} lacks {error}: another version of ablate wrote it "
                    f"({read_json(self.record.folder / 'meta.json').get('ablate')}; this is {__version__}); "
                    "fresh=true starts again and keeps the old record"
                ) from error
        gc.freeze()  # what the libraries hold is not garbage: a full collection would take half a second
        if conductor.finished:  # killed between the last step and the summary
            self.policy.restore(cast(Path, self.checkpoint))
        else:
            try:
                learner.train(resume_from_checkpoint=str(self.checkpoint) if self.checkpoint else None)
            except Misaligned as error:
                parts = ", ".join(f"{axis}={getattr(config.strategy, axis)._target_}" for axis in AXES)
                raise UserError(
                    f"strategy={config.strategy.name} ({parts}) returned misaligned groups: {error}"
                ) from error
        return conductor

    def _summarise(self, conductor: Any) -> None:
        from ablate.figures import draw
        from ablate.summary import summarise, to_text

        partial = self.record.policy.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        with disk(partial):
            self.policy.model.save_pretrained(partial)
            self.policy.tokenizer.save_pretrained(partial)
        shutil.rmtree(self.record.policy, ignore_errors=True)
        os.replace(partial, self.record.policy)
        seconds = {"total": time.monotonic() - self.started, **conductor.seconds}
        if self.mirror is not None:
            seconds["mlflow"] = self.mirror.cost.cpu_seconds
        summary = summarise(
            self.record.folder,
            self.config,
            self.ledger,
            self.origin,
            seconds,
            conductor.batch_share,
            conductor.alarm.events,
            getattr(self.task, "metric", "score"),
        )
        text = to_text(summary)
        draw(self.record.folder, f"{summary['strategy']}, seed {summary['seed']}")
        self.record.finish(summary, text)
        self.record.close()
        if not self.quiet:
            print(text)
            print(f"Results: {self.record.folder}")
        if self.mirror is not None:
            said = self.mirror.close()
            if not (self.quiet and self.mirror.complete):
                print(said)


def _or_say(work: Callable[[], None], error: BaseException) -> None:
    """The last work of a run that ends with `error`; a full disk may refuse that, too."""
    try:
        work()
    except UserError as second:
        if str(second) != str(error):
            print(f"ablate: {second}", file=sys.stderr)


def _mirror(config: Config, folder: Path) -> Any:
    """The thread that mirrors the record in MLflow, or None."""
    if not config.tracking.enabled:
        return None
    from ablate.tracking.mirror import Mirror, initialise_store, resolve_uri

    uri = resolve_uri(config.tracking.uri, Path(config.paths.results))
    initialise_store(uri)
    return Mirror(folder, uri, config.tracking.experiment, config.tracking.every_seconds)
