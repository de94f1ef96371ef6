"""What Debian wants in its own words: the changelog, and the licences of the libraries that the package carries."""
# ruff: noqa: INP001 - the folder is run as a program

from __future__ import annotations

import re
import textwrap
from datetime import UTC, datetime
from email.parser import Parser
from email.utils import format_datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from email.message import Message
    from pathlib import Path

_HEADING = re.compile(r"^## \[(?P<version>[^]]+)\](?: - (?P<date>[0-9-]{10}))?$", re.MULTILINE)
_LICENCE_FILE = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|AUTHORS)", re.IGNORECASE)
_COPYRIGHT = re.compile(r"^\W*((?:copyright|\(c\)|©).*\d{4}.*)$", re.IGNORECASE | re.MULTILINE)
# What Debian keeps in /usr/share/common-licenses is referred to, not repeated (policy 12.5).
_COMMON = {
    "Apache License": "Apache-2.0",
    "Mozilla Public License": "MPL-2.0",
}
_REFERENCE = "The full text of this licence is in /usr/share/common-licenses/{}."
_NAMES = (
    ("MIT", re.compile(r"Permission is hereby granted, free of charge")),
    ("BSD-3-Clause", re.compile(r"Neither the name")),
    ("BSD-2-Clause", re.compile(r"Redistribution and use in source and binary forms")),
    ("PSF-2.0", re.compile(r"PYTHON SOFTWARE FOUNDATION LICENSE", re.IGNORECASE)),
)


def debian_version(version: str) -> str:
    """1.2.0rc1 and 1.2.0.dev3 come before 1.2.0 there too."""
    return re.sub(r"\.?(a|b|rc|dev)(\d+)$", r"~\1\2", version)


def changelog(text: str, version: str, built: datetime, maintainer: str) -> str:
    """CHANGELOG.md as a Debian changelog, its newest entry for `version`."""
    headings = list(_HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    unreleased: list[str] = []
    entries: list[str] = []
    for heading, end in zip(headings, ends, strict=True):
        changes = list(_changes(text[heading.end() : end]))
        if heading["date"] is None:
            unreleased = changes
            continue
        at = datetime.fromisoformat(heading["date"]).replace(tzinfo=UTC)
        if not entries and heading["version"] != version:
            entries.append(_entry(version, unreleased, built, maintainer))
        elif not entries:
            changes = [*unreleased, *changes]
        entries.append(_entry(heading["version"], changes, at, maintainer))
    return "\n".join(entries)


def _changes(section: str) -> Iterator[str]:
    """The bullets, each in one line, without Markdown's code marks; before the first one, the prose."""
    for bullet in re.split(r"^- ", section, flags=re.MULTILINE)[1:]:
        yield " ".join(re.split(r"\n(?=\n|#)", bullet)[0].split()).replace("`", "")


def _entry(version: str, changes: Iterable[str], at: datetime, maintainer: str) -> str:
    lines = [
        textwrap.fill(change, 78, initial_indent="  * ", subsequent_indent="    ", break_on_hyphens=False)
        for change in changes
    ] or ["  * Build of a version that is not released."]
    body = "\n".join(lines)
    head = f"scpln-backup ({debian_version(version)}) bookworm; urgency=medium"
    return f"{head}\n\n{body}\n\n -- {maintainer}  {format_datetime(at)}\n"


class _Library(NamedTuple):
    name: str
    files: tuple[str, ...]
    holders: tuple[str, ...]
    licence: str


def copyright_file(head: str, libraries: Path) -> str:
    """debian/copyright (DEP 5): `head`, and a paragraph for each library that pip has put into a folder.

    The texts of the licences are repeated in full, as most of them ask, each different one once.
    """
    texts: dict[str, str] = {}
    stanzas = []
    for library in map(_library, sorted(libraries.glob("*.dist-info"))):
        name = texts.setdefault(library.licence, _licence_name(library, len(texts) + 1))
        files = "\n ".join(f"usr/lib/scpln-backup/{file}" for file in library.files)
        holders = "\n ".join(library.holders)
        stanzas.append(f"Files:\n {files}\nCopyright:\n {holders}\nLicense: {name}\nComment: {library.name}\n")
    stanzas += [f"License: {name}\n{_indented(text)}\n" for text, name in texts.items()]
    return "\n".join([head, *stanzas])


def _library(info: Path) -> _Library:
    metadata = Parser().parsestr((info / "METADATA").read_text(encoding="utf-8"))
    # A library may carry another one, with a licence of its own (ISA-L in isal).
    parts = [info, *(info.parent / name for name in _top_level(info))]
    found = {path for part in parts for path in part.rglob("*") if path.is_file()}
    licences = sorted(path for path in found if _LICENCE_FILE.match(path.name))
    texts = [path.read_text(encoding="utf-8").strip() for path in licences]
    holders = dict.fromkeys(" ".join(found.split()) for text in texts for found in _COPYRIGHT.findall(text))
    return _Library(
        name=f"{metadata['Name']} {metadata['Version']}",
        files=tuple(f"{name}/*" if (info.parent / name).is_dir() else name for name in _top_level(info)),
        holders=tuple(holders) or (_author(metadata),),
        licence="\n\n".join(map(_without_common, texts)) or f"{metadata['License-Expression'] or metadata['License']}",
    )


def _author(metadata: Message) -> str:
    return metadata["Author"] or metadata["Author-email"] or f"the authors of {metadata['Name']}"


def _top_level(info: Path) -> list[str]:
    """The package's folders and modules, from pip's own list (RECORD)."""
    recorded = (info / "RECORD").read_text(encoding="utf-8").splitlines()
    first = {line.split(",")[0].split("/")[0] for line in recorded}
    return [name for name in sorted(first - {".."}) if (info.parent / name).exists()]


def _without_common(text: str) -> str:
    for title, name in _COMMON.items():
        if re.search(rf"^\W*{title}", text, re.MULTILINE | re.IGNORECASE):
            return _REFERENCE.format(name)
    return text


def _licence_name(library: _Library, number: int) -> str:
    """A short name; the texts of one licence differ in their holders, so they are numbered."""
    for name in _COMMON.values():
        if library.licence == _REFERENCE.format(name):
            return name
    kind = next((name for name, pattern in _NAMES if pattern.search(library.licence)), "other")
    return f"{kind}~{number}"


def _indented(text: str) -> str:
    return "\n".join(f" {line.rstrip()}" if line.strip() else " ." for line in text.splitlines())
