"""Asking for a length: a model that was taught to follow the request follows it; mistakes are one line."""

import json

import pytest
import torch
from word_problems import SYSTEM, WordProblems, make_model, solution
from word_runs import add_task, train

from ablate.engines.hf import HFEngine
from ablate.models.format import Format
from ablate.models.policy import Policy
from ablate.report.assemble import assemble
from ablate.report.loading import load
from ablate.report.markdown import to_markdown
from ablate.testtime.__main__ import main
from ablate.testtime.asked import check_prompt, followed, thought
from ablate.testtime.bench import Bench
from ablate.testtime.frame import Frame
from ablate.testtime.methods import METHODS, jobs
from ablate.testtime.sequential import _ended
from ablate.types import Step, Trajectory, UserError

PROMPT = "Use at most {tokens} tokens."
CAP = 48


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"), steps=60)


def taught(model, steps=120):
    """A policy that thinks longer where 40 tokens are asked for than where 12 are."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy = Policy(
        AutoModelForCausalLM.from_pretrained(model),
        AutoTokenizer.from_pretrained(model),
        Format(system=SYSTEM),
    )
    task, optimizer = WordProblems(), torch.optim.AdamW(policy.model.parameters(), lr=2e-3)
    policy.model.train()
    for step in range(steps):
        rows, labels = [], []
        for i in range(12):
            problem = task.problem(1, "train", 12 * step + i)
            wanted = (12, 40)[i % 2]
            prompt = policy.prompt(f"{problem.prompt}\n{PROMPT.format(tokens=wanted)}")
            lines = f"{solution(problem).splitlines()[0]}\n" * (1 if wanted == 12 else 4)
            answer = (*policy.encode(lines + solution(problem).splitlines()[1]), policy.eos)
            rows.append(prompt + answer)
            labels.append((-100,) * len(prompt) + answer)
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[policy.eos] * (width - len(row))] for row in rows])
        wanted_ids = torch.tensor([[*row, *[-100] * (width - len(row))] for row in labels])
        policy.model(input_ids=ids, labels=wanted_ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    policy.model.eval()
    return policy


def test_a_model_that_reads_the_request_follows_it_and_is_charged_for_it(model):
    policy = taught(model)
    bench = Bench(WordProblems(), policy, HFEngine(), CAP, 1.0, 0)
    problems = [bench.problem(WordProblems().problem(0, "heldout", i)) for i in range(10)]
    frame = Frame(bench, problems, CAP, ())
    lengths, prompts = {}, {}
    for job in jobs([("length_prompt", None)], 20, CAP, 1, (12, 40), PROMPT):
        answers = list(METHODS["length_prompt"].run(frame, None, job.setting))
        assert len(answers) == 4 and all(len(each) == len(problems) for each in answers)
        lengths[job.setting["ask"]] = [[answer.length for answer in each] for each in answers]
        prompts[job.setting["ask"]] = {answer.problem.tokens for each in answers for answer in each}
        own = answers[-1]  # of the last repeat, by hand: its request and its answer, once through the model
        costs = bench.costs()
        for i, answer in enumerate(own):
            assert f"Use at most {job.setting['ask']} tokens." in policy.decode([answer.problem.tokens])[0]
            assert SYSTEM in policy.decode([answer.problem.tokens])[0]  # through the chat template
            positions, new = len(answer.problem.tokens), answer.length
            cost = policy.cost
            assert costs["tokens"][i] == new
            whole = cost.forward(0, positions, 1) + cost.forward(positions, new - 1, new - 1)
            assert costs["flops"][i] == pytest.approx(whole)
    assert not prompts[12] & prompts[40]
    short, long = (sum(map(sum, lengths[n])) / 40 for n in (12, 40))
    assert short < 16 and long > 1.8 * short


def test_the_ladder_is_of_the_cap_and_what_does_not_fit_is_refused():
    found = [job.setting["ask"] for job in jobs([("length_prompt", None)], 128, 256, 1, None)]
    assert found == [32, 64, 128, 256]
    with pytest.raises(UserError, match=r"budgets=300 asks for more tokens .* at most 256"):
        jobs([("length_prompt", None)], 128, 256, 1, (16, 300))


@pytest.mark.parametrize("text", ["Be brief.", "At most {token}.", "{tokens:d} tokens", "{tokens", "{} left"])
def test_a_request_has_one_field(text):
    with pytest.raises(UserError, match="length_prompt"):
        check_prompt(text)
    assert check_prompt(PROMPT) == PROMPT
    assert check_prompt("<{tokens}> {{of}} {tokens}")


def test_how_well_a_request_is_followed():
    found = followed([[4, 12], [8, 16]], [[True, True], [True, False]], 8)
    assert found == {"tokens": 10.0, "ratio": 1.25, "within": 0.5, "ended": 0.75}


def test_thoughts_end_with_their_tag(model):
    from transformers import AutoTokenizer

    policy = Policy.__new__(Policy)
    policy.tokenizer, policy.format = AutoTokenizer.from_pretrained(model), Format(end_of_thought="####")
    bench = type("Reads", (), {"policy": policy, "encode": staticmethod(policy.encode)})
    problem = WordProblems().problem(0, "heldout", 0)
    text = policy.encode("3 + 4 = 7\n")
    answer = Trajectory(problem, (Step(text + policy.encode("####") + policy.encode(" 7")),))
    assert thought(answer, bench) == len(text)
    assert thought(Trajectory(problem, (Step(text),)), bench) == len(text)
    policy.format = None
    assert thought(answer, bench) == answer.length


def test_an_answer_that_is_cut_goes_on_and_gets_the_tag_only_where_it_lacks_it(model):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy = Policy(
        AutoModelForCausalLM.from_pretrained(model),
        AutoTokenizer.from_pretrained(model),
        Format(system=SYSTEM, end_of_thought="####"),
    )
    bench = Bench(WordProblems(), policy, HFEngine(), 8, 1.0, 0)
    problem = bench.problem(WordProblems().problem(0, "heldout", 0))
    bench.begin_on([problem])
    thinking, answering = (
        Trajectory(problem, (Step(policy.encode(text)),)) for text in ("3 + 4 = ", "3 + 4 = 7\n####")
    )
    ends = _ended([thinking, answering, answering], [True, True, False], 40, bench)
    assert [len(end.steps) for end in ends] == [3, 2, 1] and ends[0].steps[1].tokens == policy.encode("####")
    assert all(end.length > begun.length for end, begun in zip(ends[:2], (thinking, answering), strict=True))
    assert ends[2] is answering


def test_a_judges_question_is_put_without_what_problems_are_given_along(model):
    from transformers import AutoTokenizer

    policy = Policy.__new__(Policy)
    policy.tokenizer = AutoTokenizer.from_pretrained(model)
    policy.format = Format(system=SYSTEM, instruction="Be brief.", begin="<think>\n")
    asked = policy.question("3 + 4")
    assert asked == policy.encode(Format(system=SYSTEM).render("3 + 4", policy.tokenizer))
    assert asked != policy.prompt("3 + 4")
    policy.format = None
    assert policy.question("3 + 4") == policy.prompt("3 + 4")


def test_a_run_of_a_pretrained_model_from_the_command_to_the_page(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    add_task(tmp_path)
    folder, _ = train(
        model, tmp_path / "results", "strategy=guess_check", "name=words", "evaluate.problems=10"
    )
    line = [str(folder.parent), "problems=6", "methods=majority,length_prompt,depth1", "budgets=2,20"]
    line += ["learned.problems=6", "learned.samples=2", "learned.epochs=1", "learned.head_steps=2"]
    assert main([*line, f"length_prompt={PROMPT}"]) == 0
    assert "depth1:oracle: task=word_problems has no step oracle" in capsys.readouterr().err
    rows = [json.loads(row) for row in (folder.parent / "testtime" / "points.jsonl").read_text().splitlines()]
    asked = [row for row in rows if row["method"] == "length_prompt"]
    assert [row["setting"]["ask"] for row in asked] == [2, 20]
    assert all(row["setting"]["prompt"] == PROMPT for row in asked)
    for row in asked:  # no thoughts with a tag: every token counts
        assert row["followed"]["tokens"] == pytest.approx(row["tokens"])
        assert 0 <= row["followed"]["within"] <= row["followed"]["ended"] <= 1
    text = to_markdown(assemble(load(folder.parent), 0.02))
    section = text.partition("## Asked for a length")[2].partition("\n## ")[0]
    assert f"asked: {PROMPT}" in section and "| 20 |" in section.replace("  ", "")
    section = text.partition("## Test-time methods left out")[2].partition("\n## ")[0]
    assert "depth-1 search, oracle" in section and "has no step oracle" in section
    assert "depth-1 search, learned" not in section
    # another request is another setting, and a curve of its own
    other = "Be done by {tokens}."
    assert main([*line[:2], "methods=length_prompt", "budgets=2", f"length_prompt={other}"]) == 0
    text = to_markdown(assemble(load(folder.parent), 0.02))
    assert f"asked: {other}" in text and f"asked: {PROMPT}" in text and "has no step oracle" in text
