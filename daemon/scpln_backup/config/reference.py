"""docs/configuration.md, made from the types: what errors, the example and the schema say is what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scpln_backup.config.keys import NEEDS_RESTART, keys, section_description, sections
from scpln_backup.config.write import assignment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from scpln_backup.config.keys import Key


_HEAD = """\
# Configuration

<!-- Made from the types in daemon/scpln_backup/config/schema.py by scpln_backup.config.reference: change those. -->

One TOML file for each environment. Every key has a default, so an empty file is a good one; `config.example.toml`
shows them all. Procedures: [runbook.md](runbook.md).

| command | does |
|---|---|
| `scpln-backup config init` | writes a commented file; `--from-env FILE` takes over the application's `.env` |
| `scpln-backup config check` | checks it whole: a line for each mistake, with key, reason and what was probably meant |
| `scpln-backup config show` | prints the effective configuration, and where each value comes from |
| `scpln-backup config schema` | prints the JSON Schema, for editors |
| `scpln-backup doctor` | checks what the configuration leads to: files, rights, room, units, credentials |

## Which file

`-c FILE`, else `$SCPLN_BACKUP_CONFIG`, else `/etc/scpln-backup/config.toml`. The unit `scpln-backup.service` reads the
last of them, `scpln-backup@NAME.service` reads `/etc/scpln-backup/NAME.toml`.

## Where a value comes from

| origin, weakest first | of |
|---|---|
| `default` | every key |
| `file` | every key |
| `env-file`: the `.env` that `[database] env_file` names | the database's path (`SCPLN_DB`) |
| `environment` of the process: the daemon's is that of its unit | the database's path (`SCPLN_DB`) |

`REGISTRY_BACKEND`, from the same two places, has to be `db` where it is set: otherwise the application does not keep
its data in the database. A relative `SCPLN_DB` in the `.env` counts from the `.env`'s folder. Variables and `~` are
expanded nowhere.

## Secrets

No key holds a secret. A key ending in `_file` holds an absolute path, or `credential:NAME` for a credential that
systemd hands to the unit:

```
# systemctl edit scpln-backup
[Service]
LoadCredential=slack-token:/etc/scpln-backup/slack-token
```
```toml
[slack]
token_file = "credential:slack-token"
```

A credential is read, as root, when the unit starts: after a change of its file, restart. A file that is named by its
path is read by the daemon's user, and should be readable for nobody else.

## Taking effect

`systemctl reload scpln-backup` applies every key but those that say **restart** below. A wrong file makes the reload
fail, and the old configuration stays in force. `scpln-backup doctor` tells where the daemon works with another value
than the one on disk.

## Editors

Editors that speak to [Taplo](https://taplo.tamasfe.dev/) (in VS Code: *Even Better TOML*) or
[Tombi](https://tombi-toml.github.io/tombi/) complete keys and values and mark mistakes once the first line of the file
names the schema, by its path from the file's folder or as `file:///…`:

```sh
scpln-backup config schema >scpln-backup.schema.json
```
```toml
#:schema ./scpln-backup.schema.json
```

To scpln-backup the line is a comment. What a schema cannot say of crontab expressions, time zones and addresses,
`config check` does.
"""


def reference() -> str:
    """The page in Markdown: a table for each section."""
    return "\n".join([_HEAD, *_sections()])


def _sections() -> Iterator[str]:
    yield from _section("Top of the file", "", (key for key in keys() if not key.section))
    for name in sections():
        yield from _section(f"[{name}]", section_description(name), (key for key in keys() if key.section == name))


def _section(title: str, description: str, rows: Iterable[Key]) -> Iterator[str]:
    yield f"## {title}\n"
    if description:
        yield f"{description}\n"
    yield "| key | value | default | meaning | applied by |"
    yield "|---|---|---|---|---|"
    yield from map(_row, rows)
    yield ""


def _row(key: Key) -> str:
    default = assignment(key.name, key.default).partition(" = ")[2]
    applied = "**restart**" if key.path in NEEDS_RESTART else "reload"
    cells = (f"`{key.name}`", _cell(key.must), f"`{_cell(default)}`", _cell(key.description), applied)
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
