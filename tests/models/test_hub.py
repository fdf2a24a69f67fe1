"""Where a model's files come from: folders, and a hub that serves, refuses, or is not there."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from word_problems import make_model

from ablate.models.hub import fetch, has_weights
from ablate.types import UserError

COMMIT = "a" * 40


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's HTTP interface that a download needs, for one repository."""

    folder = None
    asked: ClassVar[list[str]] = []
    refuse: ClassVar[dict[str, tuple[int, str]]] = {}  # repository: status and the hub's error code

    def _answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        parts = self.path.strip("/").split("?")[0].split("/")
        api = parts[0] == "api"
        repository = "/".join(parts[2:4] if api else parts[:2])
        if repository in self.refuse or repository != "some/model":
            status, code = self.refuse.get(repository, (404, "RepoNotFound"))
            return self._answer(status, b"{}", X_Error_Code=code)
        if api:
            if "revision" in parts and parts[-1] not in ("main", COMMIT):
                return self._answer(404, b"{}", X_Error_Code="RevisionNotFound")
            files = [
                {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": f"{i:040x}"}
                for i, path in enumerate(sorted(self.folder.iterdir()))
            ]
            body = json.dumps(files if "tree" in parts else {"id": repository, "sha": COMMIT}).encode()
            return self._answer(200, body, Content_Type="application/json")
        file = self.folder / parts[-1]
        if self.command == "GET":
            self.asked.append(file.name)
        body = file.read_bytes()
        return self._answer(200, body, ETag=f'"{hash(body)}"', X_Repo_Commit=COMMIT)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    from huggingface_hub import constants

    Hub.folder = make_model(tmp_path / "remote")
    (Hub.folder / "pytorch_model.bin").write_bytes(b"a pickle")
    Hub.asked, Hub.refuse = [], {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield Hub
    server.shutdown()


def test_the_hub_s_files_are_fetched_once_and_weights_only_when_needed(hub, monkeypatch):
    small = fetch("some/model")
    assert small.name == COMMIT and (small / "config.json").is_file() and not has_weights(small)
    whole = fetch("some/model", weights=True)
    assert whole == small and has_weights(whole)
    assert sorted(hub.asked) == sorted(set(hub.asked)) and "pytorch_model.bin" not in hub.asked
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{unused_port()}")  # no network any more
    assert fetch("some/model", weights=True) == whole


def unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_hub_that_refuses_is_quoted(hub):
    hub.refuse = {"some/gated": (403, "GatedRepo")}
    for path, revision, message in (
        ("some/typo", None, r"model.path=some/typo: there is no such folder here and no such repository"),
        ("some/gated", None, r"access to this repository is granted by its owner: .*set HF_TOKEN"),
        ("some/model", "v9", r"model.revision=v9: the repository has no such revision"),
        ("some/..bad", None, r"there is no such"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            fetch(path, revision)
        assert "\n" not in str(caught.value)


def test_a_hub_that_cannot_be_reached_names_the_folder_alternative(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{unused_port()}")
    with pytest.raises(UserError, match=r"cannot be fetched from .*set model.path to a folder"):
        fetch("some/model")


def test_folders(tmp_path):
    folder = make_model(tmp_path / "model")
    assert fetch(str(folder), weights=True) == folder and has_weights(folder)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").touch()
    for path, message in (
        (tmp_path, "holds no config.json"),
        (tmp_path / "adapter", "holds an adapter alone"),
        (tmp_path / "nowhere", "is no folder here and no hub id"),
        ("./nowhere", "is no folder here"),
        ("a/b/c", "is no folder here"),
        (folder / "config.json", "is no folder here"),
    ):
        with pytest.raises(UserError, match=message):
            fetch(str(path))
