"""What the commands have in common: exit codes, and one line for a user's mistake."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Sequence

from ablate import ranks
from ablate.schema import one_line
from ablate.types import UserError


def exit_code(work: Callable[[list[str]], int], argv: Sequence[str] | None) -> int:
    """Do a command line's work (None: this process's); 2 after a mistake of the user's, 130 after Ctrl-C, 141
    where nobody reads on (a shell's numbers for SIGINT and SIGPIPE)."""
    try:
        code = work(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"ablate{_rank()}: {one_line(error)}", file=sys.stderr)
        return 2
    except ranks.RankLost as error:
        print(f"ablate{_rank()}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        if not _unread():  # another pipe's, a worker's: an error like any other
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes
        return 141
    except KeyboardInterrupt:
        print("ablate: interrupted", file=sys.stderr)
        return 130


def _unread() -> bool:
    """Is standard output a pipe that nobody reads on, as after `| head`?"""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _rank() -> str:
    """Which of several processes says it."""
    return f" (rank {ranks.rank()} of {ranks.count()})" if ranks.count() > 1 else ""


def refuse_options(words: Sequence[str]) -> None:
    """Raises UserError for a word with dashes, where there are none but --help."""
    if unknown := [word for word in words if word.startswith("-")]:
        raise UserError(
            f"unknown option {unknown[0]}; keys are written without dashes: {unknown[0].lstrip('-')}"
        )
