"""`scpln-backup verify`."""

from __future__ import annotations

import click

from scpln_backup.cli import render
from scpln_backup.cli.context import Session, json_option, note, pass_session
from scpln_backup.errors import BackupError, LockHeldError
from scpln_backup.model import State
from scpln_backup.operations import verify as operation


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Verify every artifact.")
@click.option("--accept-shrink", is_flag=True, help="Say that a suspect artifact's shrink was meant: it counts again.")
@json_option
@pass_session
def verify(session: Session, names: tuple[str, ...], every: bool, accept_shrink: bool) -> int:
    """Decompress artifacts, compare them with their manifests and check their databases. [default: the newest]"""
    app = session.app()
    artifacts = operation.chosen(app.house, names, every=every)
    if not artifacts:
        note(f"there are no artifacts under {app.house.root} yet; make one with: scpln-backup backup")
    results = []
    for artifact in artifacts:
        try:
            result = operation.verify(app.house, artifact, accept=accept_shrink)
        except LockHeldError:
            raise
        except BackupError as error:  # the rest can still be verified
            result = operation.Verification(artifact.name, False, str(error), artifact.state)
        results.append(result)
        if not session.json:
            render.verification(result)
            if result.state is State.SUSPECT:
                note("suspect still: if the shrink was meant, say so with --accept-shrink")
            elif accept_shrink and result.ok:
                note("accepted; the next good run ends the alarm: scpln-backup backup")
    if session.json:
        session.emit(results)
    return 0 if all(result.ok for result in results) else 1
