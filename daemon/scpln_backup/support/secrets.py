"""Reading secrets: from the file that the configuration names, or from a systemd credential of the unit."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scpln_backup.errors import SecretError

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "credential:"
DIRECTORY = "CREDENTIALS_DIRECTORY"
_LONGEST = 4096


def secret_path(where: str, environ: Mapping[str, str]) -> Path:
    """The file behind a `…_file` key. SecretError for a credential outside of the service (systemd.exec(5))."""
    if not where.startswith(PREFIX):
        return Path(where)
    folder = environ.get(DIRECTORY)
    if not folder:
        raise SecretError(f"{where}: only the service has its credentials (${DIRECTORY} is not set)")
    return Path(folder) / where.removeprefix(PREFIX)


def read_secret(key: str, where: str, environ: Mapping[str, str]) -> str:
    """The secret that the key `key` ("[slack] token_file") names, without surrounding white space.

    SecretError: it cannot be read, or is no single line of printable ASCII. Its content is never in the message.
    """
    path = secret_path(where, environ)
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST + 1)
    except OSError as error:
        hint = "name it in LoadCredential= of the unit" if where.startswith(PREFIX) else "check the path and its rights"
        raise SecretError(f"{key}: {path}: {error.strerror or error}; {hint}") from error
    text = data.strip()
    if not text:
        raise SecretError(f"{key}: {path}: the file is empty; it has to hold the secret")
    if len(data) > _LONGEST or not text.isascii() or not text.decode("ascii").isprintable() or b" " in text:
        raise SecretError(f"{key}: {path}: not one line of printable ASCII without spaces; it holds something else")
    return text.decode("ascii")


def kept_secret(url: str) -> bool:
    """Whether nobody else can read what is sent there: TLS, or this very host."""
    parts = urlsplit(url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
