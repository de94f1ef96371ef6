"""What one more environment on a host needs of its own, as scpln-backup@NAME.service expects it."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from scpln_backup.config.checks import parse_listen
from scpln_backup.config.schema import Config

if TYPE_CHECKING:
    from pathlib import Path

_HOST = "127.0.0.1"


def own_values(name: str, folder: Path, *, database_known: bool) -> dict[str, Any]:
    """Values by path for the environment `name`, whose file is to lie in `folder` beside the others'.

    What would touch another environment is left empty, to be filled in by who knows: its units would be stopped by
    this one's restore. `database_known`: a .env says where the database is.
    """
    values: dict[str, Any] = {
        "environment": name,
        "backup.root": f"/var/backups/scpln-{name}",
        "state.directory": f"/var/lib/scpln-backup-{name}",
        "audit.log": f"/var/log/scpln/backup-{name}.log",
        "web.listen": f"{_HOST}:{_free_port(folder)}",
        "service.units": [],
        "service.health_url": "",
        "drill.command": [],
        "rebuild.command": [],
    }
    if not database_known:
        values |= {"database.env_file": "", "database.path": f"/opt/scpln-{name}/data/scpln.db"}
    return values


def _free_port(folder: Path) -> int:
    """The one after the highest that a file in `folder` names; every file that cannot be read may have the usual."""
    highest = Config().web.address[1]
    for file in folder.glob("*.toml"):
        try:
            listen = tomllib.loads(file.read_text(encoding="utf-8")).get("web", {}).get("listen", "")
            highest = max(highest, parse_listen(listen)[1])
        except (OSError, ValueError, AttributeError):  # a broken file is for `config check` to say
            continue
    return highest + 1
