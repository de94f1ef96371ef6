"""`scpln-backup serve`."""

from __future__ import annotations

from functools import partial

import click

from scpln_backup.app import App
from scpln_backup.cli.context import Session, pass_session
from scpln_backup.operations.house import DAEMON


@click.command()
@click.option("--backup-at-start", is_flag=True, help="Make a backup as soon as the daemon is ready.")
@pass_session
def serve(session: Session, backup_at_start: bool) -> None:
    """Run the daemon, in the foreground; systemd keeps it running."""
    from scpln_backup.service import daemon  # noqa: PLC0415 - the other verbs need no scheduler and no web server

    daemon.serve(session.config, partial(App.build, actor=DAEMON), backup_at_start=backup_at_start)
