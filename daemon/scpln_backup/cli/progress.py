"""A progress bar for people who watch a run; nothing where stderr is not a terminal."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scpln_backup.events import Event, Progressed, StageEntered
from scpln_backup.model import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress, TaskID

    from scpln_backup.events import Announcer

_WORDS = {
    Stage.PREFLIGHT: "looking at the database",
    Stage.SNAPSHOT: "copying",
    Stage.CHECK: "checking",
    Stage.COMPRESS: "compressing, checking",
    Stage.PROVE: "proving",
    Stage.PUBLISH: "publishing",
    Stage.SWEEP: "sweeping",
}


@contextmanager
def progress_bar(announce: Announcer) -> Iterator[None]:
    """Show the run that `announce` tells of for as long as the context lasts."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console  # noqa: PLC0415 - only people at a terminal wait for it
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415 - as above

    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        observer = _Bar(bar)
        announce.subscribe(observer)
        try:
            yield
        finally:
            announce.unsubscribe(observer)


class _Bar:
    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID = bar.add_task("starting", total=None)

    def __call__(self, event: Event) -> None:
        if isinstance(event, StageEntered):
            self._bar.update(self._task, description=_WORDS[event.stage], total=None, completed=0)
        elif isinstance(event, Progressed):
            self._bar.update(self._task, total=event.total, completed=event.done)
