"""What goes wrong beside the point of an operation: it costs the success, not the result."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from scpln_backup.errors import BackupError, from_os
from scpln_backup.model import Outcome
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def noted(problems: list[str]) -> Iterator[None]:
    """Note an expected failure in the context among `problems`, and go on."""
    try:
        yield
    except BackupError as error:
        problems.append(one_line(error))
    except OSError as error:
        problems.append(one_line(from_os(error)))


def settled(outcome: Outcome, error: str | None, problems: list[str]) -> tuple[Outcome, str | None]:
    """The outcome and the error that tell of `problems` too: what was a success is degraded by any."""
    if not problems:
        return outcome, error
    told = "; ".join(([error] if error else []) + problems)
    return Outcome.DEGRADED if outcome is Outcome.SUCCESS else outcome, told
