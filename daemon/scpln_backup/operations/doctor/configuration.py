"""The configuration: whose it is, who reads it, and which database it leads to."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from scpln_backup.config.envfile import BACKEND, DATABASE, database_path, from_environment, read_env_file
from scpln_backup.config.keys import is_secret
from scpln_backup.config.load import Source
from scpln_backup.operations.doctor.account import acting_as, may
from scpln_backup.operations.doctor.finding import Verdict, bad, doubtful, good, together
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from scpln_backup.errors import BackupError
    from scpln_backup.operations.doctor.account import Account
    from scpln_backup.operations.doctor.patient import Patient

_ROOT = 0


def config_file(patient: Patient) -> Verdict:
    """Readable for the daemon, and to be changed by nobody else: it names commands that root and the daemon run."""
    path = patient.loaded.path
    status = Path(os.path.realpath(path)).stat()
    with acting_as(patient.user):
        readable = may(path, os.R_OK)
    return together([_readable(path, patient.user, readable=readable), changeable(path, status, patient.user)])


def _readable(path: Path, user: Account, *, readable: bool) -> Verdict:
    if readable:
        return good(f"{path}, readable for {user}")
    return bad(f"{path}: {user}, whom the daemon runs as, cannot read it", f"chmod 0644 {path}")


def changeable(path: Path, status: os.stat_result, user: Account) -> Verdict:
    """Who may write a file that commands are taken from."""
    mode = stat.S_IMODE(status.st_mode)
    if mode & stat.S_IWOTH:
        return bad(f"{path}: any user of this host may change it, and the commands it names", f"chmod o-w {path}")
    if mode & stat.S_IWGRP and status.st_gid not in {_ROOT, user.gid}:
        return doubtful(f"{path}: its whole group may change it, and the commands it names", f"chmod g-w {path}")
    return good(f"mode {mode:04o}")


def config_warnings(patient: Patient) -> Verdict | None:
    """What loading it warned of."""
    warnings = patient.loaded.warnings
    advice = f"see: scpln-backup -c {patient.loaded.path} config show"
    return together(doubtful(warning, advice) for warning in warnings) if warnings else None


def env_file(patient: Patient) -> Verdict | None:
    """The application's .env: the daemon reads it at every start and reload."""
    name = patient.config.database.env_file
    if not name or not Path(name).exists():
        return None  # an absent one is the loader's to warn of
    path, user = Path(name), patient.user
    with acting_as(user):
        readable = may(path, os.R_OK)
    if not readable:
        advice = f"chgrp {user} {path} && chmod g+r {path}"
        return bad(f"{path}: {user}, whom the daemon runs as, cannot read it", advice)
    found = read_env_file(path)
    return judge_env_file(path, stat.S_IMODE(path.stat().st_mode), found.settings if found is not None else ())


def judge_env_file(path: Path, mode: int, names: Iterable[str]) -> Verdict:
    """`names` are what it sets. It is the application's file, so only what looks like a secret is worth a word."""
    secrets = [name for name in names if is_secret(name)]
    if mode & stat.S_IROTH and secrets:
        return doubtful(f"{path}: any user of this host can read {', '.join(secrets)}", f"chmod o-r {path}")
    return good(f"{path}, mode {mode:04o}")


def database_origin(patient: Patient) -> Verdict:
    """Which setting decides about the database, and whether the daemon sees what this shell sees."""
    path = patient.config.database.path
    origin = patient.loaded.origins["database.path"]
    where = "the default" if origin.source is Source.DEFAULT else origin.where
    if origin.source is Source.ENVIRONMENT and patient.unit is not None:
        where += f" of {patient.unit.name}"
    here = from_environment(patient.environ, DATABASE)
    if patient.unit is not None and here is not None:
        other = database_path(here, Path.cwd(), from_shell=True)
        if os.path.realpath(other) != os.path.realpath(path):
            return doubtful(
                f"{path} (by {where}) is what {patient.unit.name} backs up, but {DATABASE} in this shell is {other}",
                f"unset {DATABASE}: what is typed here works on the other database",
            )
    return good(f"{path}, by {where}")


def backend(patient: Patient) -> Verdict:
    """Another backend than db was refused when the configuration was loaded."""
    origin = patient.loaded.backend
    if origin is not None:
        return good(f"{BACKEND}=db, by {origin.where}")
    place = patient.config.database.env_file or "the environment of the unit"
    return doubtful(
        f"{BACKEND} is set nowhere, so nothing says that the application keeps its data in the database",
        f"set {BACKEND}=db in {place}",
    )


def refused(path: Path, error: BackupError) -> Iterator[Verdict]:
    """A configuration that cannot be loaded: a verdict for each mistake."""
    lines = str(error).splitlines() or [one_line(error)]
    for line in lines:
        yield bad(line, f"correct it, then: scpln-backup -c {path} config check")
