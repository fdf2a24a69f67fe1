"""What is said of the instrument."""

from synthetic_results import BUDGET, write_arms

from ablate.report.assemble import assemble
from ablate.report.content import Control, ControlClaim
from ablate.report.loading import load
from ablate.report.sensitivity import sensitivity


def test_a_control_of_other_settings_says_which(tmp_path):
    """That one search was seen to help says less of another one."""
    root = write_arms(tmp_path / "arms", {"guess_check": 0.5, "process_rewards": 0.5}, range(3))
    settings = {"credit._target_": "strategies.x.Process", "credit.scorer": "verified"}
    claim = ControlClaim(
        "Process rewards", ("process",), "guess + check", "helps", 0.1, (0.05, 0.15), 8, 120, settings
    )
    control = Control("ladder", "Ladder", "pass@1", 0.02, "flops", BUDGET, (claim,))
    (line,) = [line for line in sensitivity(assemble(load(root), 0.05, [control])) if line.startswith("Sens")]
    assert line.endswith("a benefit was seen in ladder (with credit.scorer verified instead of monte_carlo).")
