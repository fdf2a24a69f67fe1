"""Where GSM8K is, for tests on real data: it is no part of the project."""

import os
from pathlib import Path

import pytest

GSM8K = Path(os.environ.get("ABLATE_GSM8K") or Path(__file__).parents[2] / "shared" / "data" / "gsm8k")
needs_gsm8k = pytest.mark.skipif(
    not (GSM8K / "test.jsonl").exists(),
    reason="GSM8K is not there: set ABLATE_GSM8K to a folder with its train.jsonl and test.jsonl",
)
