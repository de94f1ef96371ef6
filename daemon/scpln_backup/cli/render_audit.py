"""What people read of the audit log."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from scpln_backup.records.auditlog import MAX_LINE, Kind
from scpln_backup.support.text import human_bytes, human_duration

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime, tzinfo
    from pathlib import Path

    from scpln_backup.records.auditlog import Line
    from scpln_backup.records.auditverify import Finding, Verdict

_SECOND = "%Y-%m-%d %H:%M:%S"
# Told by `--json`; here they would hide the rest.
_LEFT_OUT = frozenset({"sha256", "started_at", "writer_blocked_seconds", "raw_bytes"})
_BAD = frozenset({"failed", "rolled-back", "aborted"})
_BAD_KINDS = frozenset({Kind.BACKUP_OVERDUE, Kind.INCIDENT_OVERDUE, Kind.CONFIG_REFUSED, Kind.SERVICE_FAILED})


def lines(found: Collection[Line], log: Path, zone: tzinfo) -> None:
    """`audit show`."""
    if not found:
        click.echo(f"{log}: nothing of that kind is in the audit log")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("SEQ", "AT", "EVENT", "ACTOR"):
        table.add_column(heading, justify="right" if heading == "SEQ" else "left", no_wrap=True)
    table.add_column("WHAT", overflow="fold")
    for line in found:
        event = Text(line.event, style="red" if _is_bad(line) else "")
        table.add_row(str(line.seq), _at(line.at, zone), event, Text(line.actor), Text(_what(line)))
    console = Console(width=None if sys.stdout.isatty() else 2 * MAX_LINE, highlight=False)
    with console.capture() as drawn:
        console.print(table)
    for row in drawn.get().splitlines():  # the last column is as wide as its longest text, and the rest of it blank
        click.echo(row.rstrip())


def _is_bad(line: Line) -> bool:
    return line.facts.get("outcome") in _BAD or line.event in _BAD_KINDS or line.facts.get("sound") is False


def _what(line: Line) -> str:
    return " ".join(_fact(name, value) for name, value in line.facts.items() if name not in _LEFT_OUT)


def _fact(name: str, value: Any) -> str:
    if name == "bytes":
        return f"size={human_bytes(value).replace(' ', '')}"
    if name.endswith("seconds"):
        return f"{name.removesuffix('_seconds').replace('seconds', 'time')}={human_duration(value).replace(' ', '')}"
    text = " ".join(str(value).split()) if not isinstance(value, bool) else str(value).lower()
    return f"{name}={text!r}" if " " in text else f"{name}={text}"


def verdict(found: Verdict, log: Path, zone: tzinfo) -> None:
    """`audit verify`."""
    for finding in found.problems:
        click.echo(f"{click.style('BAD', fg='red', bold=True)}   {_finding(finding)}")
    for finding in found.notes:
        click.echo(f"note  {_finding(finding)}")
    if found.first_at is None:
        click.echo(f"{log}: no line of the audit log is there" if not found.ok else f"{log}: nothing was logged yet")
        return
    since = f"seq {found.first_seq} to {found.last_seq}, since {_at(found.first_at, zone)}"
    lines = f"{found.checked} lines" if found.checked != 1 else "1 line"
    if found.ok:
        click.echo(f"{click.style('ok', fg='green')}    {lines}, {since}: all as they were written, none missing")
    else:
        are = "is as it was" if found.checked == 1 else "are as they were"
        click.echo(f"{lines} {are} written, {since}; see above for the others")


def _finding(finding: Finding) -> str:
    where = ":".join(str(part) for part in (finding.file, finding.line) if part is not None)
    seq = f"seq {finding.seq}" if finding.seq is not None else ""
    return "  ".join(part for part in (where, seq, finding.what) if part)


def _at(at: datetime, zone: tzinfo) -> str:
    return at.astimezone(zone).strftime(_SECOND)
