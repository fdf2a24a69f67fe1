"""What is said of the instrument."""

from synthetic_results import BUDGET, write_arms

from ablate.report.assemble import assemble
from ablate.report.content import Control, ControlClaim
from ablate.report.loading import load
from ablate.report.sensitivity import sensitivity


def test_a_control_of_other_settings_says_which(tmp_path):
    """That one search was seen to help says less of another one."""
    root = write_arms(tmp_path / "arms", {"guess_check": 0.5, "process_rewards": 0.5}, range(3))
    axes = {"source._target_": "strategies.x.Sample", "recovery._target_": "strategies.x.NoRecovery"}
    settings = {**axes, "credit._target_": "strategies.y.Other", "credit.scorer": "verified", "credit.n": 3}
    known = 0.1, (0.05, 0.15), 8, 120, settings, ("needed not tested",)
    claim = ControlClaim("Process rewards", ("process",), "guess + check", "helps", *known)
    control = Control("ladder", "Ladder", "pass@1", 0.02, "flops", BUDGET, (claim,))
    said = sensitivity(assemble(load(root), 0.05, [control]))
    assert "Process rewards on top of guess + check: helps (needed not tested). +10.0 points" in said[0]
    assert said[1].endswith(
        "a benefit was seen in ladder (with credit Other instead of Process, credit.scorer verified instead "
        "of monte_carlo, credit.n 3 instead of none)."
    )
