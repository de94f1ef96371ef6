"""`scpln-backup backup`."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import click

from scpln_backup.cli import render
from scpln_backup.cli.context import Session, json_option, note, pass_session
from scpln_backup.cli.interrupt import INTERRUPTED, cancelled_by_signals
from scpln_backup.cli.progress import progress_bar
from scpln_backup.errors import BackupError
from scpln_backup.events import Announcer, BackupRequested
from scpln_backup.model import Outcome, RunRecord, Trigger
from scpln_backup.support.locks import holder

if TYPE_CHECKING:
    from scpln_backup.app import App

_LOOK_SECONDS = 0.5


@click.command()
@click.option("--wait", is_flag=True, help="If the daemon is running, have it make the backup, and wait for it.")
@json_option
@pass_session
def backup(session: Session, wait: bool) -> int:
    """Make one backup now."""
    announce = Announcer()
    reader = session.reader(announce)
    holding = holder(reader.daemon_lock.path) if wait else None
    if holding is not None and holding.pid is not None:
        record = _ask_daemon(session.app(announce, as_root=True), holding.pid)
    else:
        with reader.foreground_lock, cancelled_by_signals() as cancel, progress_bar(announce):
            record = session.app(announce).backup(Trigger.CLI, cancel)
    if session.json:
        session.emit(document(record))
    else:
        render.run(record)
    if record.error:
        note(f"{'warning' if record.outcome is Outcome.DEGRADED else 'error'}: {record.error}")
    if record.interrupted:
        return INTERRUPTED
    return 0 if record.outcome is Outcome.SUCCESS else 1


def document(record: RunRecord) -> dict[str, Any]:
    """The JSON document: the contract's keys first."""
    return {
        "outcome": record.outcome,
        "trigger": record.trigger,
        "artifact": record.artifact,
        "raw_bytes": record.raw_bytes,
        "artifact_bytes": record.artifact_bytes,
        "sha256": record.sha256,
        "raw_sha256": record.raw_sha256,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "duration_seconds": record.duration_seconds,
        "writer_blocked_seconds": record.writer_blocked_seconds,
        "wal_growth_bytes": record.wal_growth_bytes,
        "reused_from": record.reused_from,
        "stage_seconds": record.stage_seconds,
        "error": record.error,
    }


def _ask_daemon(app: App, pid: int) -> RunRecord:
    """Signal the daemon, and wait for the first run that began after that."""
    asked_at = app.now()
    app.announce(BackupRequested())
    try:
        os.kill(pid, signal.SIGUSR1)
    except PermissionError:
        raise BackupError(f"process {pid}, the backup daemon, may not be signalled by this user; use sudo") from None
    except ProcessLookupError:
        raise BackupError(f"process {pid}, the backup daemon, is gone; try again") from None
    note(f"asked the backup daemon (process {pid}); waiting for its run")
    while True:
        under_way = holder(app.house.run_lock("").path) is not None
        for record in app.catalog.runs(since=asked_at):
            if record.finished_at is not None and not (under_way and record.interrupted):
                return record
        if holder(app.daemon_lock.path) is None:
            raise BackupError("the backup daemon ended before its run did; see: systemctl status scpln-backup")
        time.sleep(_LOOK_SECONDS)
