"""A judge behind an OpenAI-compatible endpoint, asked by chat completions.

What comes back is hostile until read: its size and time are bounded, nothing in it is executed, and
`read_answer` never raises. Whatever goes wrong with a question costs that question its verdict, and no more.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ablate.ledger import Account
from ablate.types import UserError, Verdict

if TYPE_CHECKING:
    from ablate.ledger import Ledger
    from ablate.models.policy import Policy

QUICK = 0.8  # seconds that the check before a run may take
MOST_BYTES = 4 << 20  # of an answer
MOST_TOKENS = 10**7  # that a usage may claim
GIVE_UP = 16  # failures in a row after which the rest of a batch is not asked
PASSING = {408, 409, 425, 429, 500, 502, 503, 504}  # statuses that another attempt may not meet
AROUND = " \t\r\n\"'`*_.,:;!?()[]{}<>"  # what may stand around a verdict


@dataclass
class Endpoint:
    """url: the base, for example http://127.0.0.1:8000/v1. model: its name there. parameters: of that model
    (active ones, of a mixture of experts): a token costs 2 x parameters FLOPs. api_key_env: the *name* of the
    environment variable that holds the API key, for endpoints that want one. timeout: seconds per request.
    retries: further attempts after time-outs, dropped connections and passing HTTP errors, the first after
    `backoff` seconds, each later one after twice as long. concurrency: most requests under way. top_logprobs:
    alternatives asked for per token, 0 for endpoints that refuse. max_tokens: of an answer.
    """

    url: str | None = None
    model: str | None = None
    parameters: float | None = None
    api_key_env: str | None = None
    timeout: float = 30.0
    retries: int = 2
    backoff: float = 0.5
    concurrency: int = 8
    top_logprobs: int = 5
    max_tokens: int = 8

    def __post_init__(self) -> None:
        least = {"timeout": 0.001, "retries": 0, "backoff": 0, "concurrency": 1, "top_logprobs": 0}
        for name, smallest in {**least, "max_tokens": 1}.items():
            if not smallest <= (value := getattr(self, name)) < math.inf:
                raise UserError(f"judge.endpoint.{name}={value} must be at least {smallest}")
        if self.top_logprobs > 20:
            raise UserError(
                f"judge.endpoint.top_logprobs={self.top_logprobs}: no endpoint gives more than 20"
            )

    def require(self) -> None:
        """Raises UserError unless all is there that a request needs."""
        for name in ("url", "model", "parameters"):
            if getattr(self, name) is None:
                why = ": without it the judge would be free" if name == "parameters" else ""
                raise UserError(f"judge.who=endpoint needs judge.endpoint.{name}{why}")
        assert self.url is not None and self.parameters is not None
        if not 0.0 < self.parameters < math.inf:
            raise UserError(f"judge.endpoint.parameters={self.parameters} must be positive, for example 7e9")
        try:
            parts = urlsplit(self.url)
            good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            good = False
        if not good or set(self.url) & set(" \t\r\n") or not self.url.isascii():
            raise UserError(f"judge.endpoint.url={self.url} is not of the form http(s)://host[:port]/v1")
        if "@" in parts.netloc:
            raise UserError(
                "judge.endpoint.url holds a password: put the key into judge.endpoint.api_key_env"
            )

    def headers(self) -> dict[str, str]:
        """HTTP headers, the key among them. Raises UserError if its environment variable is not set."""
        headers = {"Content-Type": "application/json", "User-Agent": "ablate"}
        if self.api_key_env is not None:
            key = os.environ.get(self.api_key_env, "").strip()
            if not key or not key.isascii() or not key.isprintable():
                problem = "holds no key" if key else "is not set"
                raise UserError(
                    f"judge.endpoint.api_key_env={self.api_key_env}: the environment variable {problem}"
                )
            headers["Authorization"] = f"Bearer {key}"
        return headers

    def at(self, path: str) -> str:
        """The address of one of the endpoint's functions."""
        return f"{(self.url or '').rstrip('/')}/{path}"

    def check(self) -> None:
        """Raises UserError, within a second, if nobody answers there or the key is refused."""
        found: dict[str, Any] = {}
        headers = self.headers()

        def probe() -> None:
            try:
                socket.create_connection(_address(self.url or ""), timeout=QUICK).close()
            except (OSError, UnicodeError) as error:  # UnicodeError: no host can have this name
                found["error"] = getattr(error, "strerror", None) or str(error)
                return
            found["reached"] = True
            request = urllib.request.Request(self.at("models"), headers=headers)
            try:
                opener().open(request, timeout=QUICK).close()
            except urllib.error.HTTPError as error:
                found["status"] = error.code
                error.close()
            except (OSError, http.client.HTTPException) as error:
                found["later"] = error  # it may serve no list of models: real questions will tell, and count

        # in a thread, since looking up a name has no time-out of its own
        thread = threading.Thread(target=probe, daemon=True)
        thread.start()
        thread.join(QUICK)
        if "reached" not in found:
            why = found.get("error", f"no answer within {QUICK} s")
            raise UserError(
                f"judge.endpoint.url={self.url} cannot be reached ({why}): start the server, or choose "
                "judge.who=policy or local"
            )
        if found.get("status") in (401, 403):
            key = self.api_key_env or "null"
            raise UserError(
                f"judge.endpoint.url={self.url} refuses the key (HTTP {found['status']}): "
                f"judge.endpoint.api_key_env={key}"
            )


class EndpointJudge:
    """Implements `types.JudgeModel`: P(yes) from the probabilities that come with a verdict, else 1 or 0."""

    def __init__(self, policy: Policy, ledger: Ledger, endpoint: Endpoint, yes: str, no: str) -> None:
        self._ledger, self._endpoint, self._yes, self._no = ledger, endpoint, yes, no
        self._headers, self._opener = endpoint.headers(), opener()
        self._said: set[str] = set()
        self._in_a_row = 0  # failures; a figure for giving up, so that threads may race for it

    def ask(self, questions: Sequence[str]) -> list[Verdict]:
        """P(yes) per question. "failed": no answer; "malformed": one that gives no verdict. Answers are
        charged by their usage, or by the bytes of the question where there is none."""
        self._in_a_row = 0
        with ThreadPoolExecutor(self._endpoint.concurrency) as pool:
            answers = list(pool.map(self._ask, questions))
        verdicts: list[Verdict] = []
        for question, answer in zip(questions, answers, strict=True):
            if answer is None:
                verdicts.append("failed")
                continue
            verdict, tokens = read_answer(answer, self._yes, self._no)
            verdicts.append(verdict)
            if tokens is None:
                self._say("usage", "answers without usage: charged one token per byte, the most there can be")
                tokens = len(question.encode("utf-8", "replace")) + self._endpoint.max_tokens
            flops = 2.0 * (self._endpoint.parameters or 0.0) * tokens
            self._ledger.charge_account("judge", Account(flops, flops, tokens, tokens, tokens))
        return verdicts

    def _ask(self, question: str) -> bytes | None:
        """The body of the answer, None if there is none after all attempts."""
        if self._in_a_row >= GIVE_UP:
            return None
        settings = self._endpoint
        body: dict[str, Any] = {
            "model": settings.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": settings.max_tokens,
        }
        if settings.top_logprobs:
            body |= {"logprobs": True, "top_logprobs": settings.top_logprobs}
        # ASCII, with escapes for lone surrogates, which have no UTF-8
        data = json.dumps(body).encode("ascii")
        for attempt in range(settings.retries + 1):
            if attempt:
                time.sleep(settings.backoff * 2.0 ** (attempt - 1))
            try:
                answer = self._send(data)
            except urllib.error.HTTPError as error:
                status = error.code
                error.close()
                self._say(f"HTTP {status}", f"HTTP {status} {http.client.responses.get(status, '')}".rstrip())
                if status not in PASSING:
                    break
            except (OSError, http.client.HTTPException) as error:
                reason = error.reason if isinstance(error, urllib.error.URLError) else error
                late = isinstance(reason, TimeoutError)
                kind = f"no answer within {settings.timeout:g} s" if late else type(reason).__name__
                self._say(kind, kind)
            else:
                self._in_a_row = 0
                return answer
        self._in_a_row += 1
        return None

    def _send(self, data: bytes) -> bytes:
        deadline = time.monotonic() + self._endpoint.timeout
        request = urllib.request.Request(self._endpoint.at("chat/completions"), data, self._headers)
        body = bytearray()
        with self._opener.open(request, timeout=self._endpoint.timeout) as response:
            while len(body) <= MOST_BYTES and (part := response.read1(65536)):
                body += part
                if time.monotonic() > deadline:  # the time-out of a socket starts anew with every byte
                    raise TimeoutError
            if response.length and len(body) <= MOST_BYTES:
                raise http.client.IncompleteRead(bytes(body), response.length)
        return bytes(body) if len(body) <= MOST_BYTES else b""

    def _say(self, kind: str, text: str) -> None:
        """Tell the user of the first trouble of each kind; how often it comes is in the record."""
        if kind not in self._said:
            self._said.add(kind)
            print(f"  judge at {self._endpoint.url}: {text}", file=sys.stderr)


def read_answer(body: bytes, yes: str, no: str) -> tuple[Verdict, int | None]:
    """The verdict of a chat completion, and the tokens of its usage (None if it has none that can be).

    The verdict is an answer word at the beginning or the end of the text, without the other word at the other
    end. Where probabilities come with it, P(yes) is taken at the token that is this word, over all spellings
    of both words among the alternatives. Never raises on any bytes.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return "malformed", None
    used = [_at(answer, "usage", name) for name in ("prompt_tokens", "completion_tokens")]
    counts = [count for count in used if type(count) is int and 0 <= count <= MOST_TOKENS]
    tokens = sum(counts) if len(counts) == 2 and counts[0] > 0 else None
    text = _at(answer, "choices", 0, "message", "content")
    words = plain(yes), plain(no)
    said = _verdict(text, words) if isinstance(text, str) else None
    if said is None:
        return "malformed", tokens
    logprobs = _at(answer, "choices", 0, "logprobs", "content")
    chance = _chance(logprobs, said, words) if isinstance(logprobs, list) else None
    return float(said == words[0]) if chance is None else chance, tokens


def opener() -> urllib.request.OpenerDirector:
    """Follows no redirect: the key is for the configured address alone."""
    return urllib.request.build_opener(_NoRedirect)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """No other request: the redirect becomes an HTTPError."""
        return None


def _address(url: str) -> tuple[str, int]:
    """Host and port to connect to: the URL's, or those of the proxy that the environment names for it."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.netloc):
        parts = urlsplit(proxy if "//" in proxy else f"http://{proxy}")
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _at(value: Any, *path: str | int) -> Any:
    """The value at a path into parsed JSON, None where it does not lead anywhere."""
    for key in path:
        if isinstance(value, dict) and isinstance(key, str):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
        else:
            return None
    return value


def plain(text: str) -> str:
    """A text without what may stand around a verdict, in one case."""
    return text.strip(AROUND).casefold()


def _verdict(text: str, words: tuple[str, str]) -> str | None:
    bare = plain(text)
    first = [w for w in words if bare.startswith(w) and not bare[len(w) : len(w) + 1].isalnum()]
    last = [w for w in words if bare.endswith(w) and not bare[: -len(w)][-1:].isalnum()]
    # of "right" and "not right", the longer one was said
    said = {max(found, key=len) for found in (first, last) if found}
    return said.pop() if len(said) == 1 else None


def _chance(positions: list[Any], said: str, words: tuple[str, str]) -> float | None:
    for position in positions:
        token = _at(position, "token")
        if not isinstance(token, str) or plain(token) != said:
            continue
        mass = dict.fromkeys(words, 0.0)
        alternatives = _at(position, "top_logprobs")
        for other in alternatives if isinstance(alternatives, list) else []:
            word, logprob = _at(other, "token"), _at(other, "logprob")
            if isinstance(word, str) and type(logprob) in (int, float) and -700 <= logprob <= 0:
                word = plain(word)
                if word in mass:
                    mass[word] += math.exp(logprob)
        total = sum(mass.values())
        return mass[words[0]] / total if total > 0.0 else None
    return None
