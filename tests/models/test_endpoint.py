"""A judge behind an endpoint: strict reading, exact charges, and servers that misbehave."""

import json
import math
import threading
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judging import (
    TASK,
    USED,
    account,
    alternatives,
    body,
    judged,
    laboratory,
    prefixes_of,
    reply,
    server,
    well,
    word_policy,
)

from ablate.models.endpoint import MOST_BYTES, Endpoint, read_answer
from ablate.scorers.judge import Judge
from ablate.types import UserError
from strategies.process_rewards import Process

PARAMETERS = 7e9


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


# -- reading answers ----------------------------------------------------------------------------------------


READINGS = {
    "yes": 1.0,
    "No": 0.0,
    " **Yes.** ": 1.0,
    "No, since 3 + 4 = 7.": 0.0,
    "3 + 4 is 7, so: yes!": 1.0,
    "yes ... that is, yes": 1.0,
    "No doubt about it: yes": "malformed",
    "yesterday": "malformed",
    "I know": "malformed",
    "maybe": "malformed",
    "": "malformed",
    None: "malformed",
    7: "malformed",
}


@pytest.mark.parametrize("text", READINGS)
def test_verdicts_in_words(text):
    assert read_answer(body(text), " yes", " no") == (READINGS[text], 33)


def test_verdicts_with_probabilities():
    first = ("yes", alternatives(**{"yes": 0.5, " Yes": 0.1, "no": 0.2, "yeah": 0.1, "NO": 0.05}))
    assert read_answer(body("yes", [first]), " yes", " no")[0] == pytest.approx(0.6 / 0.85)
    later = [("**", alternatives(no=0.9)), first]
    assert read_answer(body("**yes**", later), " yes", " no")[0] == pytest.approx(0.6 / 0.85)
    # what is no probability of either word does not count
    for others in (
        [],
        None,
        "yes",
        [{"token": "yes", "logprob": x} for x in (1.0, "0", None, True, 10**400)],
    ):
        assert read_answer(body("no", [("no", others)]), " yes", " no")[0] == 0.0
    assert read_answer(body("not right", [("not", []), ("right", first[1])]), "right", "not right")[0] == 0.0


@pytest.mark.parametrize(
    "usage",
    [None, {}, [], {"prompt_tokens": 0, "completion_tokens": 1}, {**USED, "completion_tokens": "2"}]
    + [{**USED, "prompt_tokens": x} for x in (-1, True, 1e3, 10**30, None)],
)
def test_a_usage_that_cannot_be_is_none(usage):
    assert read_answer(body("yes", usage=usage), " yes", " no") == (1.0, None)


words = st.sampled_from(["yes", "no", " No", "**", "content", "logprobs", ""]) | st.text(max_size=4)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | words
trees = st.recursive(leaves, lambda s: st.lists(s, max_size=3) | st.dictionaries(words, s, max_size=3))
candidates = st.lists(st.fixed_dictionaries({"token": trees, "logprob": leaves}) | trees, max_size=3)
positions = st.lists(st.fixed_dictionaries({"token": trees, "top_logprobs": candidates | trees}), max_size=3)
choices = st.fixed_dictionaries(
    {
        "message": st.fixed_dictionaries({"content": words | trees}) | trees,
        "logprobs": st.fixed_dictionaries({"content": positions | trees}) | trees,
    }
)
completions = st.fixed_dictionaries(
    {
        "choices": st.lists(choices | trees, max_size=2) | trees,
        "usage": st.dictionaries(st.sampled_from(list(USED)), leaves) | trees,
    }
)
bodies = st.one_of(
    st.binary(),
    st.text().map(lambda text: text.encode("utf-8", "surrogatepass")),
    (trees | completions).map(lambda tree: json.dumps(tree).encode()),
)


@given(bodies, st.sampled_from([(" yes", " no"), ("right", "not right"), ("+", "-")]))
def test_reading_never_raises(data, pair):
    verdict, tokens = read_answer(data, *pair)
    assert verdict == "malformed" or 0.0 <= verdict <= 1.0
    assert tokens is None or tokens > 0


def test_reading_what_breaks_parsers():
    for data in (b"[" * 10**6, b'{"a":' * 10**5, b"9" * 10**5, b"\xff\xfe", b"NaN", b"\xef\xbb\xbf{}"):
        assert read_answer(data, " yes", " no") == ("malformed", None)


# -- endpoints ----------------------------------------------------------------------------------------------


def endpoint(url, **settings):
    fast = {"timeout": 10.0, "retries": 1, "backoff": 0.01, "concurrency": 4, **settings}
    return Endpoint(url=url, model="judge", parameters=PARAMETERS, **fast)


def test_a_good_endpoint(monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    lab = laboratory(word_policy())
    prefixes = prefixes_of(lab)
    with server(well) as (url, requests):
        judge = Judge(who="endpoint", endpoint=endpoint(f"{url}/", api_key_env="MY_KEY"))
        judge.check(TASK)
        values = judge.values(prefixes, lab)
        monkeypatch.setenv("MY_KEY", "stale")
        with pytest.raises(UserError, match=r"refuses the key \(HTTP 401\).*MY_KEY"):
            judge.check(TASK)
    assert values == pytest.approx([0.5, 0.9, 0.1] * 3)
    assert len(requests) == 6
    for path, headers, asked in requests:
        assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret"
        assert {k: v for k, v in asked.items() if k != "messages"} == {
            "model": "judge",
            "temperature": 0,
            "max_tokens": 8,
            "logprobs": True,
            "top_logprobs": 5,
        }
    asked = Counter(r[2]["messages"][0]["content"] for r in requests)
    assert asked == Counter(judge.question(prefix, lab) for prefix in judged(prefixes))
    assert any(
        "of an attempt so far:\n1 + 2 = 3\n\nIts next step:\nno\n\nIs" in question for question in asked
    )
    flops = 2 * PARAMETERS * 33 * 6
    assert account(lab).to_dict() == {
        "flops": flops,
        "logical_flops": flops,
        "tokens": 33 * 6,
        "processed": 33 * 6,
        "logical_processed": 33 * 6,
    }
    assert "secret" not in repr(judge)


def sleepy(handler, question, count):
    time.sleep(1.0)


def dripping(handler, question, count):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(50):
        handler.wfile.write(b" ")
        time.sleep(0.05)


def cut(handler, question, count):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(body("yes"))


def moved(handler, question, count):
    reply(handler, b"", 302, Location="http://127.0.0.1:1/steal")


TROUBLE = {
    # name: (behaviour, share failed, share malformed, attempts per question, is the answer charged)
    "500": (lambda h, q, n: reply(h, body("yes"), 500), 1.0, 0.0, 2, False),
    "400": (lambda h, q, n: reply(h, b"no logprobs here", 400), 1.0, 0.0, 1, False),
    "redirect": (moved, 1.0, 0.0, 1, False),
    "slow": (sleepy, 1.0, 0.0, 2, False),
    "dripping": (dripping, 1.0, 0.0, 2, False),
    "dropped": (lambda h, q, n: h.connection.close(), 1.0, 0.0, 2, False),
    "no HTTP": (lambda h, q, n: h.wfile.write(b"\x00\xff yes\n" * 99), 1.0, 0.0, 2, False),
    "cut short": (cut, 1.0, 0.0, 2, False),
    "nonsense": (lambda h, q, n: reply(h, b"<html>yes</html>"), 0.0, 1.0, 1, True),
    "no verdict": (lambda h, q, n: reply(h, body("well, it depends")), 0.0, 1.0, 1, True),
    "too much": (lambda h, q, n: reply(h, b" " * (MOST_BYTES + 1) + body("yes")), 0.0, 1.0, 1, True),
}


@pytest.mark.parametrize("name", TROUBLE)
def test_trouble_is_counted_and_worth_the_neutral_value(name, capfd):
    behave, failed, malformed, attempts, charged = TROUBLE[name]
    lab = laboratory(word_policy())
    prefixes = prefixes_of(lab, 2)
    with server(behave) as (url, requests):
        patience = {"timeout": 0.3} if name in ("slow", "dripping") else {}
        judge = Judge(who="endpoint", endpoint=endpoint(url, **patience), neutral=0.25)
        judge.check(TASK)
        assert judge.values(prefixes, lab) == [0.25] * 6
        assert len(requests) == 4 * attempts
    assert lab._logged["scorer/judge_failed"] == [failed]
    assert lab._logged["scorer/judge_malformed"] == [malformed]
    questions = [judge.question(prefix, lab) for prefix in judged(prefixes)]
    guessed = sum(len(question.encode()) + 8 for question in questions)  # a token per byte, 8 for the answer
    expected = (33 * 4 if name == "no verdict" else guessed) if charged else 0
    assert account(lab).tokens == expected and account(lab).flops == 2 * PARAMETERS * expected
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("  judge at")]
    assert len(said) == (0 if name == "no verdict" else 1)


def test_retries_succeed_and_a_dead_endpoint_is_given_up():
    lab = laboratory(word_policy())
    seen = Counter()

    def second_time(handler, question, count):
        seen[question] += 1
        well(handler, question, count) if seen[question] == 2 else reply(handler, b"", 429)

    with server(second_time) as (url, requests):
        judge = Judge(who="endpoint", endpoint=endpoint(url))
        assert judge.values(prefixes_of(lab), lab) == pytest.approx([0.5, 0.9, 0.1] * 3)
        assert len(requests) == 12
    # nobody listens any more: after some failures in a row the rest of the batch is not tried
    many = prefixes_of(lab, 200)
    slow = Judge(who="endpoint", endpoint=endpoint(url, backoff=0.1))
    begun = time.monotonic()
    assert slow.values(many, lab) == [0.5] * len(many)
    assert time.monotonic() - begun < 5.0
    assert lab._logged["scorer/judge_failed"][-1] == 1.0


def test_requests_under_way_are_bounded():
    lab, under_way, most = laboratory(word_policy()), [0], [0]
    lock = threading.Lock()

    def slowly(handler, question, count):
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        time.sleep(0.05)
        with lock:
            under_way[0] -= 1
        well(handler, question, count)

    with server(slowly) as (url, _):
        judge = Judge(who="endpoint", endpoint=endpoint(url, concurrency=3))
        judge.values(prefixes_of(lab, 6), lab)
    assert most == [3]


def test_an_endpoint_that_cannot_be_reached_is_refused_at_once():
    with server(well) as (url, _):
        pass  # closed: nobody listens there any more
    for dead in (url, "http://no-such-host.invalid/v1"):
        begun = time.monotonic()
        with pytest.raises(UserError) as caught:
            Process(scorer="judge", judge=Judge(who="endpoint", endpoint=endpoint(dead))).check(TASK)
        assert time.monotonic() - begun < 1.0
        assert f"judge.endpoint.url={dead} cannot be reached" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"parameters": None}, "judge would be free"),
        ({"parameters": 0.0}, "parameters=0.0"),
        ({"model": None}, "judge.endpoint.model"),
        ({"url": "file:///etc/passwd"}, "http(s)://"),
        ({"url": "http://[::1/v1"}, "http(s)://"),
        ({"url": "http://me:pass@host/v1"}, "api_key_env"),
        ({"concurrency": 0}, "concurrency=0"),
        ({"timeout": math.nan}, "timeout=nan"),
        ({"top_logprobs": 21}, "top_logprobs=21"),
        ({"api_key_env": "NO_SUCH_KEY"}, "NO_SUCH_KEY"),
    ],
)
def test_mistakes_in_an_endpoint_s_settings(settings, words):
    good = {"url": "http://127.0.0.1:1/v1", "model": "m", "parameters": 1e9}
    with pytest.raises(UserError) as caught:
        Judge(who="endpoint", endpoint=Endpoint(**{**good, **settings})).check(TASK)
    assert words in str(caught.value) and "pass@" not in str(caught.value)
