"""`scpln-backup config init/check/show/schema`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from scpln_backup.app import App
from scpln_backup.cli.context import Session, json_option, note, pass_session
from scpln_backup.config.load import load_with_origins
from scpln_backup.config.schema import Config
from scpln_backup.errors import ConfigError, from_os
from scpln_backup.support.files import make_folder, write_durably

_READABLE = 0o644
_OPEN = 0o755


@click.group()
def config() -> None:
    """Write, check and show the configuration."""


@config.command()
@click.option(
    "--from-env", "env_file", type=click.Path(path_type=Path), metavar="FILE", help="Take over the application's .env."
)
@click.option("--environment", metavar="NAME", help="One more environment on this host: folders and a port of its own.")
@click.option("--force", is_flag=True, help="Replace a configuration that is there; it is kept as FILE.old.")
@json_option
@pass_session
def init(session: Session, env_file: Path | None, environment: str | None, force: bool) -> None:
    """Write a commented configuration."""
    from scpln_backup.config.environments import own_values  # noqa: PLC0415 - as below
    from scpln_backup.config.write import init as draft  # noqa: PLC0415 - tomli-w is needed here only

    # The zone is written out: whoever reads "30 2 * * *" should see whose half past two that is.
    path = session.config_path
    overrides = {"schedule.timezone": Config().timezone.key}
    if environment is not None:
        overrides |= own_values(environment, path.parent, database_known=env_file is not None)
    written = draft(env_file, overrides)
    try:
        if path.exists() and not force:
            raise ConfigError(f"{path}: there is a configuration already; --force replaces it and keeps it as FILE.old")
        if path.exists():
            path.replace(path.with_name(path.name + ".old"))
        make_folder(path.parent, _OPEN)
        # Everybody may read it: it holds no secrets, and the daemon runs as another user than who writes it.
        write_durably(path, written.text.encode(), _READABLE, overwrite=False)
    except OSError as error:
        raise from_os(error) from error
    for warning in written.warnings:
        note(f"warning: {warning}")
    if written.unused:
        note(f"not used from {env_file}: {', '.join(written.unused)}")
    if session.json:
        session.emit({"path": str(path), "values": written.values, "unused": written.unused})
    else:
        click.echo(f"{path}: written; look it over, then: scpln-backup -c {path} config check")
        if environment is not None:
            click.echo("To be filled in by hand: [service], [drill], [rebuild]; without, only the database is restored")


@config.command()
@json_option
@pass_session
def check(session: Session) -> None:
    """Check the configuration whole; exit code 2 when it is wrong."""
    loaded = load_with_origins(session.config_path, os.environ)
    App.reader(loaded.config)  # what depends on several keys, such as the schedule in its zone
    for warning in loaded.warnings:
        note(f"warning: {warning}")
    if session.json:
        session.emit({"path": str(loaded.path), "ok": True, "warnings": loaded.warnings})
    else:
        click.echo(f"{loaded.path}: good; the database is {loaded.config.database.path}")


@config.command()
@json_option
@pass_session
def show(session: Session) -> None:
    """Print the effective configuration, with the origin of each value; secrets are hidden."""
    from scpln_backup.config.show import as_dict, as_toml  # noqa: PLC0415 - tomli-w is needed here only

    loaded = load_with_origins(session.config_path, os.environ)
    if session.json:
        session.emit(as_dict(loaded))
    else:
        click.echo(as_toml(loaded), nl=False)


@config.command()
@json_option
@pass_session
def schema(session: Session) -> None:
    """Print the configuration's JSON Schema, for editors."""
    from scpln_backup.config.show import json_schema  # noqa: PLC0415 - as above

    session.emit(json_schema())
