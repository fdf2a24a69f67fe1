"""`accelerate launch --cpu --num_processes 2 -m ablate ...`: two processes, as it says.

accelerate (1.15) starts a single one for the CPU, however many are asked for, and leaves the others to MPI.
How many it was asked for stands on its command line; torchrun starts them in place of the one.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ablate import ranks
from ablate.types import UserError


def start_others(words: Sequence[str]) -> int:
    """Replace this process by torchrun's, if accelerate wanted several on the CPU and started one.

    words: the command line of ablate. Returns 0 where there is nothing to do. Raises UserError if nothing
    says how many accelerate wanted.
    """
    # it says where the processes would meet only if there are to be several
    if not ranks.on_cpu() or "MASTER_ADDR" not in os.environ or "WORLD_SIZE" in os.environ:
        return 0
    if any(variable in os.environ for variable in ranks.MPI):
        return 0  # `ranks.check` has a word for them
    processes, machines = _asked()
    if processes is None or machines != 1:
        raise UserError(
            "accelerate launch --cpu has started one process of several; nearest: "
            f"torchrun --nproc_per_node {processes or 2} -m ablate ..."
        )
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *launcher, "-m", "ablate", *words])


def _asked() -> tuple[int | None, int]:
    """(processes, machines) on the command line of accelerate, which started this process."""
    import psutil

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--num_processes", "--num-processes", type=int)
    parser.add_argument("--num_machines", "--num-machines", type=int, default=1)
    parent = psutil.Process().parent()
    try:
        known = parser.parse_known_args(parent.cmdline()[1:] if parent else [])[0]
    except (argparse.ArgumentError, psutil.Error):  # not accelerate's, which would have refused it
        return None, 1
    return known.num_processes, known.num_machines
