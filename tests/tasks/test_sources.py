"""Rows from files, folders and the hub."""

import json

import pytest

from ablate.tasks import sources
from ablate.tasks.sources import Source, local_rows
from ablate.types import UserError

ROWS = [{"question": "a", "answer": "1"}, {"question": "b", "answer": "2"}]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def test_a_file_and_a_folder(tmp_path):
    path = write(tmp_path / "own.jsonl", ROWS)
    assert local_rows(str(path)) == {"all": [(f"{path}:1", ROWS[0]), (f"{path}:2", ROWS[1])]}
    folder = tmp_path / "data"
    train, test = write(folder / "train.jsonl", ROWS[:1]), write(folder / "test.jsonl", ROWS[1:])
    write(folder / "notes.jsonl", ROWS)
    assert local_rows(str(folder)) == {"train": [(f"{train}:1", ROWS[0])], "test": [(f"{test}:1", ROWS[1])]}


def test_a_folder_of_another_format_is_loaded_by_the_library(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for split, rows in (("train", ROWS), ("test", ROWS[:1])):
        pq.write_table(pa.Table.from_pylist(rows), _made(tmp_path / "data") / f"{split}.parquet")
    found = local_rows(str(tmp_path / "data"))
    assert found["train"] == [(f"{tmp_path / 'data'}[train]:{i}", row) for i, row in enumerate(ROWS, 1)]
    assert [row for _, row in found["test"]] == ROWS[:1]


def _made(folder):
    folder.mkdir(exist_ok=True)
    return folder


def test_the_hub_is_asked_for_the_split(tmp_path, monkeypatch):
    """The library itself, with a folder in the place of an id."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(ROWS), _made(tmp_path / "data") / "validation.parquet")
    monkeypatch.setattr(sources, "reachable", lambda url: True)
    rows = Source(str(tmp_path / "data"), None, "validation").rows("task.train")
    assert [row for _, row in rows] == ROWS and rows[1][0] == f"{tmp_path / 'data'}[validation]:2"
    with pytest.raises(UserError, match=r"task.train.dataset=.* cannot be loaded: .*test.*task.path="):
        Source(str(tmp_path / "data"), None, "test").rows("task.train")


def test_an_unreachable_hub_names_the_folder_instead(monkeypatch):
    import datasets

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for address in ("http://127.0.0.1:9", "https://no.such.host.invalid"):
        assert not sources.reachable(address)
    before = datasets.config.HF_HUB_OFFLINE
    with pytest.raises(UserError) as caught:
        Source("nobody/nothing-of-this-name", "main", "test").rows("task.heldout")
    text = str(caught.value)
    assert text.startswith(
        "task.heldout.dataset=nobody/nothing-of-this-name cannot be loaded: the hub cannot "
    )
    assert text.endswith("is not in the cache; task.path= takes a file or a folder instead")
    assert before == datasets.config.HF_HUB_OFFLINE


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: f / "none.jsonl", "does not exist: name a .jsonl file or a folder"),
        (lambda f: write(f / "own.csv", ROWS), "is no .jsonl file"),
        (
            lambda f: write(f / "data" / "valid.jsonl", ROWS).parent,
            "holds valid.jsonl, but neither train.jsonl",
        ),
        (lambda f: _made(f / "empty"), "cannot be loaded"),
    ],
)
def test_a_path_that_cannot_be_read_is_told(tmp_path, make, message):
    with pytest.raises(UserError) as caught:
        local_rows(str(make(tmp_path)))
    assert str(caught.value).startswith("task.path=") and message in str(caught.value)
    assert "\n" not in str(caught.value)
