"""For tests of judges: laboratories with something to judge and a chat server."""

import json
import math
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tiny import tiny_policy

from ablate.engines.hf import HFEngine
from ablate.lab import Laboratory
from ablate.ledger import Ledger
from ablate.tasks.countdown import Countdown
from ablate.types import Step, Trajectory

TASK = Countdown(numbers=2, largest=8)
USED = {"prompt_tokens": 31, "completion_tokens": 2}


def word_policy(*words, **kwargs):
    return tiny_policy(vocabulary=[*TASK.vocabulary(), *words], sharpness=3.0, **kwargs)


def laboratory(policy):
    engine, ledger = HFEngine(), Ledger("tokens", 1e9)
    engine.start(policy, ledger)
    return Laboratory(TASK, policy, engine, ledger, cap=64, temperature=1.0, sampling_seed=0)


def prefixes_of(lab, count=3):
    """For each problem the prompt, one step, and that step with a restart after it."""
    found = []
    for i in range(count):
        start = Trajectory(lab.problem(TASK.problem(0, "train", i)))
        one = start.then(Step(lab.encode(f"{i + 1} + 2 = {i + 3} \n ")))
        found += [start, one, one.then(Step(lab.encode("no \n ")))]
    return found


def judged(prefixes):
    return [prefix for prefix in prefixes if prefix.steps]


def account(lab):
    return lab._ledger.accounts["judge"]


def body(text, top=None, usage=USED, **message):
    content = [{"token": token, "top_logprobs": others} for token, others in top or []]
    choice = {"message": {"content": text, **message}, "logprobs": {"content": content} if top else None}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


def alternatives(**chances):
    return [{"token": token, "logprob": math.log(p)} for token, p in chances.items()]


@contextmanager
def server(behave):
    """A chat server; behave(handler, question, count) answers the count-th POST. Yields url and requests."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append((self.path, dict(self.headers), asked))
            behave(self, asked["messages"][0]["content"], len(requests))

        def do_GET(self):
            refused = self.headers.get("Authorization") == "Bearer stale"
            reply(self, b"{}", 401 if refused else 404)

        def log_message(self, *args):
            """Quiet."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    httpd.handle_error = lambda *args: None  # clients that hang up are part of the tests
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}/v1", requests
    finally:
        httpd.shutdown()
        httpd.server_close()


def reply(handler, data, status=200, **headers):
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(data)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data)


def well(handler, question, count):
    """Restarts are wrong, other steps right, 9 to 1."""
    wrong = "Its next step:\nno" in question
    good, bad = ("no", "yes") if wrong else ("yes", "no")
    reply(handler, body(good, [(good, alternatives(**{good: 0.9, bad: 0.1}))]))
