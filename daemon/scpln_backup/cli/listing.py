"""`scpln-backup list`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from scpln_backup.cli import render
from scpln_backup.cli.context import Session, json_option, pass_session

if TYPE_CHECKING:
    from scpln_backup.model import Artifact


@click.command("list")
@json_option
@pass_session
def listing(session: Session) -> None:
    """List the artifacts, newest first."""
    app = session.reader()
    artifacts = app.store.scan()
    if session.json:
        session.emit([document(artifact) for artifact in artifacts])
    else:
        render.artifacts(artifacts, app.house.root, app.zone)


def document(artifact: Artifact) -> dict[str, Any]:
    return {
        "name": artifact.name,
        "path": artifact.path,
        "taken_at": artifact.taken_at,
        "bytes": artifact.bytes,
        "raw_bytes": artifact.raw_bytes,
        "state": artifact.state,
        "pinned": artifact.pinned,
        "stores": artifact.stores,
        "problem": artifact.problem,
    }
