"""The reports in the repository are what today's code says of the runs beside them."""

from pathlib import Path

import pytest

from ablate.record import read_json
from ablate.report.assemble import assemble
from ablate.report.content import SCHEMA
from ablate.report.loading import load
from ablate.report.wording import sentences

RESULTS = Path(__file__).parents[2] / "results"
REPORTED = sorted(path.parent for path in RESULTS.glob("*/verdict.json"))

pytestmark = pytest.mark.skipif(not REPORTED, reason="the results are in the repository, not in the package")


@pytest.mark.parametrize("folder", REPORTED, ids=lambda folder: folder.name)
def test_reports_are_of_todays_version(folder):
    assert read_json(folder / "verdict.json")["schema"] == SCHEMA


def test_a_report_says_today_what_it_said(tmp_path):
    folder = RESULTS / "tall_ladder"
    verdict, again = read_json(folder / "verdict.json"), assemble(load(folder), 0.02)
    assert [claim["word"] for claim in verdict["claims"]] == [claim.word for claim in again.claims]
    page = (folder / "report.md").read_text().replace("**", "")
    assert all(sentence in page for sentence in sentences(again))
