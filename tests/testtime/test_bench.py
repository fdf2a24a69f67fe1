"""Every method: the same alone and together, all its compute on the right problem's account."""

import numpy as np
import pytest
from benches import CAP, Spying, made

from ablate.ledger import Account
from ablate.testtime.guides import Fitting, MonteCarloGuide, OracleGuide, VerifierGuide, examples, fit
from ablate.testtime.methods import METHODS

FITTING = Fitting(problems=6, samples=2, epochs=1, head_steps=2)
JOBS = [
    ("natural", None, {"cap": 12, "samples": 2}),
    ("majority", None, {"n": 4}),
    ("best_of_n", "verifier", {"n": 4}),
    ("best_of_n", "learned", {"n": 4}),
    ("best_of_n", "monte_carlo", {"n": 2}),
    ("depth1", "oracle", {"n": 3}),
    ("depth1", "monte_carlo", {"n": 2}),
    ("beam", "learned", {"n": 8, "m": 4}),
    ("dvts", "value", {"n": 8, "m": 4}),
    ("rebase", "learned", {"n": 6}),
    ("mcts", "value", {"simulations": 8, "width": 3, "parallel": 2}),
    ("budget_forcing", None, {"wait": 2}),
    ("budget_forcing", None, {"stop": 8}),
    ("revision", None, {"answers": 3, "choose": "majority"}),
]


def guide_of(name, frame):
    if name in ("learned", "value"):
        return fit(name, frame.bench, examples(frame.bench, FITTING), FITTING)
    return {
        None: None,
        "oracle": OracleGuide(),
        "verifier": VerifierGuide(),
        "monte_carlo": MonteCarloGuide(2),
    }[name]


def done(frame, method, guide, setting):
    """Answers and costs of every repeat; totals of the ledger beside them."""
    out = []
    for answers in METHODS[method].run(frame, guide, setting):
        totals = frame.bench.tally.totals()
        out.append(([answer.completion for answer in answers], frame.bench.costs(), totals))
    return out


@pytest.mark.parametrize(("method", "guide", "setting"), JOBS, ids=lambda value: str(value))
def test_a_batch_is_its_problems_one_at_a_time(method, guide, setting):
    frame = made()
    judge = guide_of(guide, frame)
    together = done(frame, method, judge, setting)
    for answers, costs, totals in together:
        assert all(len(answer) > 0 for answer in answers)
        for name in ("flops", "logical_flops"):  # the problems' shares are the ledger's own total
            assert costs[name].sum() == pytest.approx(totals[name], rel=1e-12)
        assert sum(costs["compute"].values()).sum() == pytest.approx(totals["flops"], rel=1e-12)
        assert (costs["flops"] > 0).all() and (costs["flops"] <= costs["logical_flops"]).all()
    for i, problem in enumerate(frame.problems):
        alone = type(frame)(frame.bench, [problem], frame.longest, frame.marker)
        for (answers, costs, _), (own, own_costs, _) in zip(
            together, done(alone, method, judge, setting), strict=True
        ):
            assert own == [answers[i]]
            for name in ("tokens", "flops", "logical_flops"):
                assert own_costs[name][0] == costs[name][i], name


def counted(cost, rows, prompt):
    """Tokens and FLOPs of requests on one prompt, written down again: every position is computed once."""
    known, flops, logical, tokens = set(), 0.0, 0.0, 0

    def passes(first, last, heads):
        """Positions first..last (inclusive), each attending to all before it and itself."""
        total = sum(2.0 * cost.linear + 4.0 * cost.attention * (at + 1) for at in range(first, last + 1))
        return total + 2.0 * cost.head * heads

    for prefix, samples in rows:
        if prefix[: len(prompt)] != prompt:
            continue
        fresh = [at for at in range(len(prefix)) if prefix[: at + 1] not in known] or [len(prefix) - 1]
        known |= {prefix[: at + 1] for at in range(len(prefix))}
        flops += passes(fresh[0], len(prefix) - 1, 1)
        logical += passes(0, len(prefix) - 1, 1)
        for sample in samples:
            whole = prefix + sample[:-1]  # the last token is not fed back
            new = [at for at in range(len(prefix), len(whole)) if whole[: at + 1] not in known]
            known |= {whole[: at + 1] for at in range(len(whole))}
            flops += sum(passes(at, at, 1) for at in new)
            logical += sum(passes(at, at, 1) for at in range(len(prefix), len(whole)))
            tokens += len(sample)
    return tokens, flops, logical


@pytest.mark.parametrize(
    ("method", "guide", "setting"),
    [
        ("depth1", "oracle", {"n": 3}),
        ("depth1", "monte_carlo", {"n": 2}),
        ("beam", "oracle", {"n": 8, "m": 4}),
        ("rebase", "oracle", {"n": 5}),
        ("budget_forcing", None, {"wait": 2}),
        ("revision", None, {"answers": 3, "choose": "last"}),
    ],
    ids=lambda value: str(value),
)
def test_tokens_and_flops_are_those_of_an_independent_count(method, guide, setting):
    engine = Spying()
    frame = made(engine=engine)
    engine.seen = []
    ((_, costs, _),) = done(frame, method, guide_of(guide, frame), setting)
    for i, problem in enumerate(frame.problems):
        tokens, flops, logical = counted(frame.bench.policy.cost, engine.seen, problem.tokens)
        assert costs["tokens"][i] == tokens
        assert costs["flops"][i] == pytest.approx(flops, rel=1e-12)
        assert costs["logical_flops"][i] == pytest.approx(logical, rel=1e-12)


def test_what_is_used_again_is_paid_for_again():
    """n answers of a pool cost what n answers cost that are drawn for the purpose."""
    frame = made()
    ((_, first, _), _) = done(frame, "majority", None, {"n": 8})
    fresh = made()
    fresh.bench.begin_on(fresh.problems)
    from ablate.types import Trajectory

    fresh.bench.sample([Trajectory(problem) for problem in fresh.problems], 8)
    np.testing.assert_array_equal(first["flops"], fresh.bench.costs()["flops"])
    np.testing.assert_array_equal(first["tokens"], fresh.bench.costs()["tokens"])


@pytest.mark.parametrize(
    ("method", "setting"),
    [
        ("beam", {"n": 8, "m": 4}),
        ("rebase", {"n": 6}),
        ("mcts", {"simulations": 8, "width": 3, "parallel": 2}),
    ],
    ids=lambda value: str(value),
)
def test_a_step_scorer_reads_what_it_is_charged_and_decides_as_without_a_cache(method, setting):
    frame = made()
    guide = guide_of("learned", frame)
    model, asked = guide._model, []
    predict, before = model.predict, model._cache.computed
    model.predict = lambda paths: [asked.extend(paths), predict(paths)][1]
    ((answers, costs, _),) = done(frame, method, guide, setting)
    rows = {(path.problem.id, path.problem.tokens + path.completion) for path in asked}
    distinct = {(name, row[: at + 1]) for name, row in rows for at in range(len(row))}
    score = frame.bench.tally.accounts["score"]
    assert model._cache.computed - before == len(distinct) == score.processed
    cost = model._cost
    flops = sum(2.0 * cost.linear + 4.0 * cost.attention * len(prefix) for _, prefix in distinct)
    assert score.flops == pytest.approx(flops, rel=1e-12)
    model._cache = None  # every path is read from its beginning
    ((again, same, _),) = done(frame, method, guide, setting)
    assert again == answers
    np.testing.assert_array_equal(same["flops"], costs["flops"])


def test_fitting_has_an_account_of_its_own():
    frame = made()
    found = examples(frame.bench, FITTING)
    guide = fit("learned", frame.bench, found, FITTING)
    assert guide.fit_flops > found.flops > 0
    (_, costs, _) = done(frame, "best_of_n", guide, {"n": 2})[0]
    assert set(costs["compute"]) == {"rollout", "score"}
    assert frame.bench.tally.accounts["auxiliary_update"] == Account()


@pytest.mark.parametrize("method", ["best_of_n", "depth1"])
def test_rollouts_that_a_judge_verifies_are_each_problems_own(method, monkeypatch):
    """Its questions begin with no problem's prompt."""
    frame = made()

    def judge_all(self, problems, completions, ask, log):
        for text in completions:
            question = (1,) * (10 + len(text))
            frame.bench.tally.charge_scoring("judge", frame.bench.policy.cost, (), question, 1)
        return [len(text) % 2 == 0 for text in completions]

    monkeypatch.setattr(type(frame.bench.task), "judge_all", judge_all, raising=False)
    _, costs, totals = done(frame, method, MonteCarloGuide(2), {"n": 2})[0]
    assert (costs["compute"]["judge"] > 0).sum() >= 2  # of cut rollouts nobody is asked
    assert costs["flops"].sum() == pytest.approx(totals["flops"], rel=1e-12)


def test_examples_are_steps_of_training_problems_labelled_with_the_outcome():
    frame = made()
    found = examples(frame.bench, FITTING)
    heldout = {frame.bench.task.problem(0, "heldout", i).id for i in range(frame.bench.task.size("heldout"))}
    assert len(found.paths) == len(found.outcomes) > 12
    assert not heldout & {path.problem.id for path in found.paths}
    assert set(found.outcomes) <= {0.0, 1.0}
    assert all(not frame.bench.truncated(path) and path.length <= CAP for path in found.paths)


def test_a_charge_that_is_nobodys_is_an_error():
    frame = made()
    frame.bench.begin_on(frame.problems)
    with pytest.raises(ValueError, match="no problem's prompt"):
        frame.bench.tally.charge_generation("rollout", frame.bench.policy.cost, (1, 2, 3), [(4,)])
    with frame.bench.about(frame.problems[2]):
        frame.bench.tally.charge_generation("judge", frame.bench.policy.cost, (1, 2, 3), [(4,)])
    assert [float(x) > 0 for x in frame.bench.costs()["flops"]] == [False, False, True, False]
    with frame.bench.about(frame.problems[1]):  # what an endpoint tells of itself
        frame.bench.tally.charge_account("judge", Account(5.0, 6.0, 7, 8, 9))
    assert frame.bench.costs()["flops"][1] == 5.0 and frame.bench.costs()["logical_flops"][1] == 6.0
    with pytest.raises(ValueError, match="same prompt"):
        frame.bench.begin_on([frame.problems[0], frame.problems[0]])
