"""For tests that need the sandbox."""

import sys
from dataclasses import dataclass

import pytest

from ablate.tasks import sandbox
from ablate.tasks.trial import Limits

PROBLEM = sandbox._problem()
needs_sandbox = pytest.mark.skipif(bool(PROBLEM), reason=f"no sandbox here: {PROBLEM}")
linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has the sandbox")


@dataclass(frozen=True)
class Quick(Limits):
    """Limits that a test can wait for."""

    seconds: int = 1
    memory: int = 256 << 20

    @property
    def wall(self):
        return 4.0
