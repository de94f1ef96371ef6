"""The process that checks a restored database, so that one thing can be checked beside another.

A process of its own: started early it waits for the file rather than the file for it, it can be given up at once in
the middle of an integrity_check, and where SQLite maps the file into memory, an error of the disk ends (by SIGBUS)
this process and not the daemon.

It reads one line, the JSON string of the path, and writes one, a `Verdict`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from scpln_backup.errors import BackupError, SourceCorruptError, SourceError, from_os
from scpln_backup.stages import check
from scpln_backup.support import niceness
from scpln_backup.support.command import die_with_parent


class Sound(msgspec.Struct, frozen=True, tag="sound"):
    content: check.Content


class Unsound(msgspec.Struct, frozen=True, tag="unsound"):
    message: str

    def error(self) -> BackupError:
        return SourceCorruptError(self.message)


class Unknown(msgspec.Struct, frozen=True, tag="unknown"):
    """The check could not be done, which says nothing about the database."""

    message: str

    def error(self) -> BackupError:
        return BackupError(self.message)


Verdict = Sound | Unsound | Unknown


def main() -> None:
    die_with_parent()
    niceness.yield_at_once()
    line = sys.stdin.buffer.readline()
    if line:  # else it is not needed any more
        verdict = judge(Path(msgspec.json.decode(line, type=str)))
        os.write(sys.stdout.fileno(), msgspec.json.encode(verdict) + b"\n")


def judge(database: Path) -> Verdict:
    try:
        return Sound(check.examine(database, mapped=True))
    except SourceError as error:
        return Unsound(str(error))
    except BackupError as error:
        return Unknown(str(error))
    except OSError as error:
        return Unknown(str(from_os(error)))


if __name__ == "__main__":
    main()
