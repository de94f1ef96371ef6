"""`scpln-backup pin` and `unpin`."""

from __future__ import annotations

import click

from scpln_backup.cli.context import Session, json_option, pass_session
from scpln_backup.events import ArtifactPinned


@click.command()
@click.argument("name")
@json_option
@pass_session
def pin(session: Session, name: str) -> None:
    """Keep an artifact from every sweep."""
    _set(session, name, pinned=True)


@click.command()
@click.argument("name")
@json_option
@pass_session
def unpin(session: Session, name: str) -> None:
    """Let retention decide about an artifact again."""
    _set(session, name, pinned=False)


def _set(session: Session, name: str, *, pinned: bool) -> None:
    app = session.app()
    with app.house.run_lock(f"a change of {name}'s pin"):
        app.store.pin(name, pinned)
        app.catalog.sync_artifacts(app.store.scan(), app.now())
        app.announce(ArtifactPinned(name=name, pinned=pinned))
    if session.json:
        session.emit({"name": name, "pinned": pinned})
    else:
        click.echo(f"{name}: {'pinned; no sweep deletes it' if pinned else 'no longer pinned'}")
