"""Held-out evaluation: its statistics against brute force, and what its figures may depend on."""

from copy import deepcopy
from itertools import combinations
from statistics import fmean
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.config import EvaluateConfig
from ablate.engines.hf import HFEngine
from ablate.evaluate import (
    KL_ANSWERS,
    clustered_se,
    evaluate,
    heldout_problems,
    majority_right,
    pass_at,
)
from ablate.ledger import Ledger
from ablate.randomness import hash64
from ablate.record import primary
from ablate.types import Problem, UserError

# -- statistics ---------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=5), st.integers(1, 6))
@settings(deadline=None)
def test_pass_at_k_is_the_mean_over_all_subsets(solved, k):
    brute = [fmean(any(subset) for subset in combinations(row, k)) for row in solved]
    np.testing.assert_allclose(pass_at(np.sum(solved, axis=1), 6, k), brute, atol=1e-12)


answers = st.sampled_from(["a", "b", "c", None])


@given(st.lists(answers, min_size=1, max_size=7), st.sets(st.sampled_from("abc")))
@settings(deadline=None)
def test_majority_is_the_most_frequent_answer_and_the_first_of_equals(row, right):
    solved = np.array([[answer in right for answer in row]])
    votes = [answer for answer in row if answer is not None]
    ranked = sorted(set(votes), key=lambda answer: (-votes.count(answer), votes.index(answer)))
    assert majority_right([row], solved).tolist() == [bool(ranked) and ranked[0] in right]


def test_majority_rules():
    def judge(row, right):
        return bool(majority_right([row], np.array([[answer == right for answer in row]]))[0])

    assert judge(["a", "b", "b"], "b")
    assert judge(["a", "b", "b", "a"], "a") and not judge(["b", "a", "a", "b"], "a")  # the first of equals
    assert judge([None, None, "a"], "a")  # unfinished answers have no vote
    assert not judge([None, None], "a")
    assert judge(["", "", "", "a", "a", "b"], "a")  # nor has what holds no answer
    assert not judge(["", ""], "a")


def sandwich(values, clusters):
    """The cluster-robust covariance of ordinary least squares on a constant, in matrices, with the usual
    small-sample factor G / (G - 1) * (N - 1) / (N - K)."""
    x = np.ones((len(values), 1))
    bread = np.linalg.inv(x.T @ x)
    residuals = values - x @ (bread @ x.T @ values)
    meat = np.zeros((1, 1))
    groups = sorted(set(clusters))
    for group in groups:
        rows = [i for i, cluster in enumerate(clusters) if cluster == group]
        score = x[rows].T @ residuals[rows]
        meat += np.outer(score, score)
    n, k, g = len(values), 1, len(groups)
    return float(np.sqrt((bread @ meat @ bread)[0, 0] * g / (g - 1) * (n - 1) / (n - k)))


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from("vwxyz")), min_size=2, max_size=30))
@settings(deadline=None)
def test_clustered_error_is_the_sandwich(pairs):
    values, clusters = np.array([value for value, _ in pairs]), [cluster for _, cluster in pairs]
    if len(set(clusters)) == 1:
        assert np.isnan(clustered_se(values, np.array(clusters)))
    else:
        assert clustered_se(values, np.array(clusters)) == pytest.approx(sandwich(values, clusters), abs=1e-9)


def test_clustered_error_covers_in_simulation():
    """Clusters of unequal size with a common effect: the error is the spread of the mean over repetitions."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 12, size=120)
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    means, errors = [], []
    for _ in range(600):
        values = rng.normal(size=len(sizes))[clusters] + rng.normal(size=len(clusters))
        means.append(values.mean())
        errors.append(clustered_se(values, clusters))
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(means), rel=0.08)
    naive = np.sqrt(2 / len(clusters))
    assert naive < 0.6 * np.std(means)  # the clusters matter
    # problems on their own: the textbook formula
    alone = clustered_se(values, np.arange(len(values)))
    assert alone == pytest.approx(values.std(ddof=1) / np.sqrt(len(values)))


# -- one decode ---------------------------------------------------------------------------------------------


class Checksum:
    """A task whose answers are right or wrong at random, whatever the model writes."""

    name = "checksum"
    step_boundary = "\n"

    def size(self, split):
        return 30

    def problem(self, seed, split, index):
        stratum = ("easy", "medium", "hard")[index % 3]
        return Problem(
            str(index), f"{index % 7} : {index % 5} ", {}, cluster=str(index // 4), stratum=stratum
        )

    def verify(self, problem, completion):
        return crc32(f"{problem.id} {completion}".encode()) % 3 == 0

    def answer(self, problem, completion):
        return str(crc32(completion.encode()) % 3)

    def behaviours(self, problem, completion):
        return {"lines": float(completion.count("\n")), "words": float(len(completion.split()))}


CAP = 12


class Partly(Checksum):
    """Answers can be right in part."""

    def score(self, problem, completion):
        return 1.0 if self.verify(problem, completion) else (crc32(completion.encode()) % 5) / 5


def judged(policy, longest, config=None, ledger=None, seed=0, max_rows=1024, reference=None, task=None):
    config = config or EvaluateConfig(samples=6)
    engine = HFEngine(max_rows)
    engine.start(policy, ledger or Ledger())
    task = task or Checksum()
    problems = heldout_problems(task, config, seed)
    return evaluate(engine, policy, task, problems, config, CAP, longest, reference)


def same(one, two, but=()):
    assert list(one.columns) == list(two.columns)
    for name in one.columns.keys() - set(but):
        np.testing.assert_array_equal(one.columns[name], two.columns[name], err_msg=name)


@pytest.fixture
def exact(policy):
    """float64: what is drawn does not depend on which rows share a batch, not even in the last bit."""
    policy.model.double()
    return policy


def test_one_decode_gives_every_shorter_cap(exact):
    long, short = judged(exact, 2 * CAP), judged(exact, CAP)
    same(long, short, but=("decoded", "ended", "right"))
    ended = short.columns["ended"]
    for name in ("decoded", "ended", "right"):  # the same wherever the shorter decode saw the end
        np.testing.assert_array_equal(long.columns[name][ended], short.columns[name][ended])
    assert short.metrics.items() <= long.metrics.items()
    assert long.metrics.keys() - short.metrics.keys() == {f"pass@1_cap{2 * CAP}"}
    # half the cap, from the longer decode
    config = EvaluateConfig(samples=6)
    engine = HFEngine()
    engine.start(exact, Ledger())
    task = Checksum()
    half = evaluate(engine, exact, task, heldout_problems(task, config, 0), config, CAP // 2, CAP // 2)
    assert half.metrics["pass@1"] == long.metrics[f"pass@1_cap{CAP // 2}"]
    truncated = short.columns["truncated"]
    assert 0.1 < truncated.mean() < 0.9 and long.columns["right"].sum() > long.columns["solved"].sum()


def test_a_task_can_score_answers_that_are_right_in_part(exact):
    plain, partly = judged(exact, 2 * CAP), judged(exact, 2 * CAP, task=Partly())
    assert plain.metrics.items() <= partly.metrics.items() and "score" not in plain.columns
    score, solved = partly.columns["score"], partly.columns["solved"]
    assert (score[solved] == 1.0).all() and len(set(score[~solved])) > 2
    names = partly.metrics.keys() - plain.metrics.keys()
    caps = {f"score_cap{CAP // 2}", f"score_cap{2 * CAP}"}
    assert names == {"score", "score_se", "score_easy", "score_medium", "score_hard", *caps}
    assert partly.metrics["score"] == pytest.approx(score.mean()) and partly.metrics["score_se"] > 0
    hard = partly.columns["stratum"] == np.array("hard")
    assert partly.metrics["score_hard"] == pytest.approx(score[hard].mean())
    # of the answer as far as the cap lets it come
    assert judged(exact, CAP, task=Partly()).metrics["score"] == partly.metrics["score"]
    assert (primary(plain.metrics), primary(partly.metrics)) == ("pass@1", "score")


def test_a_score_is_a_share(policy):
    class Wrong(Checksum):
        def score(self, problem, completion):
            return 1.5

    with pytest.raises(UserError, match=r"task=checksum: its score must lie in \[0, 1\], and gave 1.5"):
        judged(policy, CAP, task=Wrong())


def test_figures_are_those_of_the_columns(exact):
    """Recomputed from the rows alone, one problem at a time."""
    result = judged(exact, 2 * CAP)
    columns, metrics = result.columns, result.metrics
    rows = len(columns["problem"])
    assert result.problems == 30 and rows == 180
    assert all(len(values) == rows for values in columns.values())
    assert list(columns["sample"][:7]) == [0, 1, 2, 3, 4, 5, 0]
    by_problem = {}
    for problem, solved in zip(columns["problem"], columns["solved"], strict=True):
        by_problem.setdefault(problem, []).append(bool(solved))
    shares = {problem: fmean(solved) for problem, solved in by_problem.items()}
    assert metrics["pass@1"] == pytest.approx(fmean(shares.values()))
    for k in (2, 4, 6):
        pooled = [any(subset) for solved in by_problem.values() for subset in combinations(solved, k)]
        assert metrics[f"pass@{k}"] == pytest.approx(fmean(pooled))
    assert "pass@8" not in metrics and "pass@3" not in metrics
    clusters = [str(int(problem) // 4) for problem in shares]
    assert metrics["pass@1_se"] == pytest.approx(sandwich(np.array(list(shares.values())), clusters))
    for i, stratum in enumerate(("easy", "medium", "hard")):
        assert metrics[f"pass@1_{stratum}"] == pytest.approx(
            fmean(s for problem, s in shares.items() if int(problem) % 3 == i)
        )
    assert metrics["length"] == pytest.approx(fmean(columns["tokens"]))
    assert metrics["truncated"] == pytest.approx(fmean(columns["truncated"]))
    assert metrics["behaviour/words"] == pytest.approx(fmean(columns["words"]))
    assert not (columns["solved"] & columns["truncated"]).any()
    assert (columns["tokens"] <= CAP).all() and (columns["decoded"] <= 2 * CAP).all()
    # what an answer did beyond the cap is not counted; the end token is no word
    assert (columns["words"] <= columns["tokens"]).all()


def test_evaluation_depends_on_the_policy_alone(exact):
    """Not on an earlier one, the run's seeds, its ledger and budget, or the batches."""
    import random

    import torch

    first = judged(exact, 2 * CAP)
    spent = Ledger("tokens", 5.0)
    spent.accounts["rollout"].tokens = 1000
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)
    second = judged(exact, 2 * CAP, ledger=spent, seed=17, max_rows=7)
    same(first, second)
    assert first.metrics == second.metrics
    config = EvaluateConfig(samples=6, problems=10)
    chosen = heldout_problems(Checksum(), config, 3)
    assert [problem.id for problem in chosen] == [str(i) for i in range(0, 30, 3)]  # spread evenly


def test_evaluation_is_charged_to_its_own_account(exact):
    ledger = Ledger()
    result = judged(exact, CAP, ledger=ledger)
    assert set(ledger.by_purpose()) == {"evaluate"} and ledger.spent == 0.0
    account = ledger.accounts["evaluate"]
    assert account.tokens == result.columns["decoded"].sum()
    assert account.flops == account.logical_flops > 0
    again = Ledger()
    judged(exact, CAP, ledger=again)
    judged(exact, CAP, ledger=again)
    assert again.accounts["evaluate"].flops == 2 * account.flops


# -- distance from the start --------------------------------------------------------------------------------


def perturbed(policy, size):
    """A copy with noise on every matrix."""
    import torch

    other = deepcopy(policy)
    noise = torch.Generator().manual_seed(0)
    for parameter in other.model.parameters():
        shift = torch.randn(parameter.shape, generator=noise, dtype=parameter.dtype)
        parameter.data += size * parameter.data.std(correction=0) * shift
    return other


def test_the_start_is_at_no_distance_from_itself(policy):
    """Exactly, in single precision: decoding rounds otherwise than scoring, so both sides are scored."""
    metrics = judged(policy, CAP, reference=deepcopy(policy)).metrics
    assert metrics["kl_per_token"] == metrics["kl_per_answer"] == 0.0
    assert "kl_per_token" not in judged(policy, CAP).metrics


def test_divergence_is_that_of_an_independent_computation(exact):
    """Row by row, from the formula; and in expectation the divergence of the whole distributions."""
    import torch

    start, longest = perturbed(exact, 0.1), 2 * CAP
    config, task = EvaluateConfig(samples=6), Checksum()
    result = judged(exact, longest, config, reference=start)
    engine = HFEngine()
    engine.start(exact, Ledger())
    problems = heldout_problems(task, config, 0)
    key = hash64("evaluate", config.split, config.samples)
    prompts = [exact.prompt(problem.prompt) for problem in problems]
    drawn = engine.generate(prompts, 6, [longest] * len(prompts), key=key, purpose="evaluate")
    tokens, estimates, whole = 0, [], []
    for prompt, steps in zip(prompts, drawn, strict=True):
        for step in steps:  # 180 answers are fewer than KL_ANSWERS: all of them
            answer = step.tokens[:CAP]
            ids = torch.tensor([prompt + answer])
            with torch.no_grad():
                p, q = (
                    policy.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
                    for policy in (exact, start)
                )
            whole += (p.exp() * (p - q)).sum(-1).tolist()
            chosen = torch.tensor(answer)[:, None]
            estimates.append(float((p - q).gather(-1, chosen).sum()))
            tokens += len(answer)
    assert result.metrics["kl_per_token"] == pytest.approx(sum(estimates) / tokens, rel=1e-5)
    assert result.metrics["kl_per_answer"] == pytest.approx(fmean(estimates), rel=1e-5)
    assert result.metrics["kl_per_token"] == pytest.approx(fmean(whole), rel=0.15) and fmean(whole) > 0.01


def test_the_distance_is_taken_on_a_part_of_the_samples_and_costs_no_budget(exact):
    start = perturbed(exact, 0.1)
    ledger, plain = Ledger("flops", 1e12), Ledger("flops", 1e12)
    config = EvaluateConfig(samples=20)
    result = judged(exact, 2 * CAP, config, ledger=ledger, reference=start)
    without = judged(exact, 2 * CAP, config, ledger=plain)
    same(result, without)
    added = ledger.accounts["evaluate"].tokens - plain.accounts["evaluate"].tokens
    rows = [i * 600 // KL_ANSWERS for i in range(KL_ANSWERS)]
    assert added == 2 * result.columns["tokens"][rows].sum()  # read by both policies
    assert set(ledger.by_purpose()) == {"evaluate"} and ledger.spent == 0.0
    # and no prefix was left in a cache that training could find it in
    prompt = exact.prompt(heldout_problems(Checksum(), config, 0)[0].prompt)
    for charged in (ledger, plain):
        charged.charge_generation("rollout", exact.cost, prompt, [(5, 6)])
    assert ledger.spent == plain.spent > 0.0


# -- small cases --------------------------------------------------------------------------------------------


def test_one_sample_has_no_vote(exact):
    metrics = judged(exact, CAP, EvaluateConfig(samples=1)).metrics
    assert not any(name.startswith("majority") or name == "pass@2" for name in metrics)
