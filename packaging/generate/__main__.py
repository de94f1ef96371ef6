"""Write what is made from the program itself, for the Debian package.

    python packaging/generate FOLDER [LIBRARIES]

FOLDER gets the manual pages, the completions of three shells, the configuration's JSON Schema, and Debian's
changelog and copyright file; the last one tells of the libraries in the folder LIBRARIES. Times come from
$SOURCE_DATE_EPOCH, so that two builds of one commit are alike.
"""
# ruff: noqa: INP001 - the folder is run as a program

from __future__ import annotations

import json
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import completions
import debian
import manual
import verbs

from scpln_backup import __version__
from scpln_backup.cli.main import command
from scpln_backup.config.show import json_schema

PACKAGING = Path(__file__).resolve().parents[1]
CHANGELOG = PACKAGING.parent / "CHANGELOG.md"


def main(target: Path, libraries: Path) -> None:
    built = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), UTC)
    line = verbs.read(command)
    pages = {
        "scpln-backup.1": manual.command_page(prose("man/scpln-backup.1.in", built), line, command.epilog or ""),
        "scpln-backup-config.5": manual.config_page(prose("man/scpln-backup-config.5.in", built)),
    }
    shells = {
        "scpln-backup.bash": completions.bash(line),
        "_scpln-backup": completions.zsh(line),
        "scpln-backup.fish": completions.fish(line),
    }
    (maintainer,) = re.findall("^Maintainer: (.+)$", prose("debian/control", built), re.MULTILINE)
    texts = {
        "config.schema.json": json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n",
        "changelog": debian.changelog(CHANGELOG.read_text(encoding="utf-8"), __version__, built, maintainer),
        "copyright": debian.copyright_file(prose("debian/copyright.in", built), libraries),
    }
    target.mkdir(parents=True, exist_ok=True)
    for name, text in {**pages, **shells, **texts}.items():
        (target / name).write_text(text, encoding="utf-8")


def prose(name: str, built: datetime) -> str:
    text = (PACKAGING / name).read_text(encoding="utf-8")
    return text.replace("@VERSION@", __version__).replace("@DATE@", f"{built:%Y-%m-%d}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
