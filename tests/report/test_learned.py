"""Arms that learn on some seeds, or on none."""

import pytest
from synthetic_results import curve, write_run

from ablate.report.assemble import assemble
from ablate.report.loading import load

NONE = "guess_check learned on none of 4 seeds; that it does on up to 53 % of seeds is not excluded"


@pytest.mark.parametrize(
    "ends, word, said",
    [
        ([0.3] * 4, "no verdict", ("none of its arms learned anything: that tells nothing",)),
        ([0.9, 0.3, 0.3, 0.3], "inconclusive", ("mcts learned on 1 of 4 seeds alone", NONE)),
        ([0.9] * 4, "helps", (NONE,)),
    ],
)
def test_where_training_works_on_some_seeds_only_that_is_said(tmp_path, ends, word, said):
    """An interval of four seeds cannot know of the seeds on which an arm would have done something else."""
    for seed, end in enumerate(ends):
        write_run(tmp_path, "guess_check", seed, [0.3] * 4)
        write_run(tmp_path, "mcts", seed, curve(end))
    (claim,) = assemble(load(tmp_path), 0.05).claims
    assert claim.word == word
    assert all(any(each.startswith(text) for each in claim.caveats) for text in said), claim.caveats
