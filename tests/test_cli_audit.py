"""`audit`: the log as people and scripts read it, its chain, and the review of a month."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import click
import pytest
from click.testing import CliRunner, Result

from scpln_backup import events
from scpln_backup.cli.audit import audit
from scpln_backup.cli.context import Session
from scpln_backup.errors import AuditError, BackupError
from scpln_backup.model import Outcome, RunRecord, Trigger
from scpln_backup.observers.audit import AuditTrail
from scpln_backup.records.catalog import Catalog
from support.place import Place

if TYPE_CHECKING:
    from pathlib import Path

TOKYO = ZoneInfo("Asia/Tokyo")
START = datetime(2026, 10, 30, 2, 30, tzinfo=TOKYO)


def last_month() -> str:
    return f"{datetime.now(TOKYO).replace(day=1) - timedelta(days=1):%Y-%m}"


class Host:
    """A place whose log has a few days in it, over a change of months."""

    def __init__(self, folder: Path) -> None:
        self.place = Place(folder)
        self.log = folder / "backup.log"
        self.catalog = Catalog.open(self.place.state / "catalog.db", TOKYO, START - timedelta(days=90), "daemon")
        for day in range(4):
            self.run(START + timedelta(days=day), Outcome.FAILED if day == 1 else Outcome.SUCCESS)
        self.catalog.keep_event(events.ArtifactPinned(name="a.db.gz", pinned=True), START + timedelta(days=3, hours=1))
        self.write()

    def run(self, start: datetime, outcome: Outcome) -> None:
        record = RunRecord(
            id=self.catalog.begin_run(Trigger.SCHEDULE, start),
            trigger=Trigger.SCHEDULE,
            started_at=start,
            finished_at=start + timedelta(seconds=12),
            outcome=outcome,
            artifact="a.db.gz" if outcome is Outcome.SUCCESS else None,
            artifact_bytes=117 << 20,
            duration_seconds=12.3,
            error="disk full\nreally" if outcome is Outcome.FAILED else None,
        )
        self.catalog.finish_run(record)

    def write(self) -> None:
        names = {"database": "scpln", "environment": "test", "host": "db1"}
        AuditTrail(self.catalog, self.log, self.place.state, **names).catch_up()

    def audit(self, *arguments: str) -> Result:
        return called(self.place, *arguments)

    def json(self, *arguments: str, code: int = 0) -> Any:
        done = self.audit(*arguments, "--json")
        assert exit_code(done) == code, (done.output, done.exception)
        return json.loads(done.stdout)


def called(place: Place, *arguments: str) -> Result:
    """As the command calls the verb: it makes the exit code of what the verb returns or raises."""
    return CliRunner().invoke(audit, arguments, obj=Session(str(place.config)), standalone_mode=False)


def exit_code(done: Result) -> int:
    if isinstance(done.exception, click.ClickException | BackupError):
        return done.exception.exit_code
    assert done.exception is None, done.exception
    return done.return_value or 0


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


class TestShow:
    def test_newest_last(self, host: Host) -> None:
        done = host.audit("show")
        assert exit_code(done) == 0
        heading, *rows = done.stdout.splitlines()
        assert heading.split() == ["SEQ", "AT", "EVENT", "ACTOR", "WHAT"]
        assert [row.split()[:4] for row in (rows[0], rows[-1])] == [
            ["1", "2026-10-30", "02:30:12", "run_finished"],
            ["5", "2026-11-02", "03:30:00", "artifact_pinned"],
        ]
        assert rows[0].endswith("outcome=success trigger=schedule artifact=a.db.gz size=117MiB time=12s")
        assert "error='disk full really'" in rows[1]
        assert len(rows) == 5

    def test_without_a_verb_it_shows(self, host: Host) -> None:
        assert host.audit().stdout == host.audit("show").stdout

    def test_documents(self, host: Host) -> None:
        found = host.json("show")
        assert [one["seq"] for one in found] == [1, 2, 3, 4, 5]
        assert found[1] | {"hash": "", "catalog": ""} == {
            "seq": 2,
            "at": "2026-10-31T02:30:12+09:00",
            "event": "run_finished",
            "actor": "daemon",
            "database": "scpln",
            "environment": "test",
            "host": "db1",
            "outcome": "failed",
            "trigger": "schedule",
            "started_at": "2026-10-31T02:30:00+09:00",
            "bytes": 117 << 20,
            "seconds": 12.3,
            "error": "disk full\nreally",
            "catalog": "",
            "entry": 2,
            "hash": "",
        }

    @pytest.mark.parametrize(
        ("options", "seqs"),
        [
            (["--limit", "2"], [4, 5]),
            (["--month", "2026-10"], [1, 2]),
            (["--since", "2026-11-01"], [3, 4, 5]),
            (["--since", "2026-10-31", "--until", "2026-11-02T02:30"], [2, 3]),
            (["--event", "artifact_pinned"], [5]),
            (["--event", "artifact_pinned", "--event", "run_finished", "--limit", "3"], [3, 4, 5]),
            (["--event", "drill_finished"], []),
        ],
    )
    def test_what_is_asked_for(self, host: Host, options: list[str], seqs: list[int]) -> None:
        assert [one["seq"] for one in host.json("show", *options)] == seqs

    @pytest.mark.parametrize(
        "options",
        [
            ["--event", "no_such"],
            ["--month", "2026-13"],
            ["--since", "yesterday"],
            ["--limit", "0"],
            ["--month", "2026-10", "--since", "2026-10-01"],
        ],
    )
    def test_what_cannot_be_asked_for(self, host: Host, options: list[str]) -> None:
        assert exit_code(host.audit("show", *options)) == 2

    def test_over_rotated_files(self, host: Host) -> None:
        host.log.rename(host.log.with_name("backup.log-20261102"))
        host.run(START + timedelta(days=4), Outcome.SUCCESS)
        host.write()
        assert [one["seq"] for one in host.json("show")] == [1, 2, 3, 4, 5, 6]

    def test_a_line_that_is_missing_is_said(self, host: Host) -> None:
        lines = host.log.read_bytes().splitlines(keepends=True)
        host.log.write_bytes(b"".join(lines[:1] + lines[2:]))
        done = host.audit("show")
        assert exit_code(done) == 0
        assert "audit verify" in done.stderr
        assert "audit verify" not in host.audit("show", "--month", "2026-11").stdout

    def test_nothing_yet(self, tmp_path: Path) -> None:
        place = Place(tmp_path)
        done = called(place, "show")
        assert (exit_code(done), done.stdout) == (
            0,
            f"{tmp_path}/backup.log: nothing of that kind is in the audit log\n",
        )
        assert not place.state.exists()


class TestVerify:
    def test_whole(self, host: Host) -> None:
        done = host.audit("verify")
        assert exit_code(done) == 0
        assert "ok    5 lines, seq 1 to 5, since 2026-10-30 02:30:12: all as they were written" in done.stdout
        document = host.json("verify")
        assert {name: document[name] for name in ("ok", "checked", "first_seq", "last_seq", "problems")} == {
            "ok": True,
            "checked": 5,
            "first_seq": 1,
            "last_seq": 5,
            "problems": [],
        }

    def test_broken(self, host: Host) -> None:
        host.log.write_bytes(host.log.read_bytes().replace(b'"seconds":12.3', b'"seconds":1.23', 1))
        done = host.audit("verify")
        assert exit_code(done) == 1
        assert "BAD   backup.log:1  seq 1  altered: not the line that was written" in done.stdout
        (problem,) = host.json("verify", code=1)["problems"]
        assert (problem["file"], problem["line"], problem["seq"]) == ("backup.log", 1, 1)

    def test_text_of_the_old_procedure(self, tmp_path: Path) -> None:
        (tmp_path / "backup.log").write_text("total 117M\n")
        done = Host(tmp_path).audit("verify")
        assert exit_code(done) == 0
        assert "note  backup.log:1  1 line of other text, 11 bytes; unchanged since" in done.stdout

    def test_nothing_yet(self, tmp_path: Path) -> None:
        place = Place(tmp_path)
        done = called(place, "verify")
        assert (exit_code(done), done.stdout) == (0, f"{tmp_path}/backup.log: nothing was logged yet\n")
        assert not place.state.exists()

    def test_a_log_that_cannot_be_read(self, host: Host) -> None:
        host.log.unlink()
        host.log.mkdir()
        done = host.audit("verify")
        assert isinstance(done.exception, AuditError)
        assert "backup.log" in str(done.exception)


class TestTheCommand:
    def test_what_it_does_is_in_the_log(self, tmp_path: Path) -> None:
        place = Place(tmp_path)
        name = place.backup()["artifact"]
        place.run("pin", name)
        told = [(one["event"], one["artifact"]) for one in place.json("audit", "show")]
        assert told == [("run_finished", name), ("artifact_pinned", name)]
        assert place.run("audit", "verify").returncode == 0
        log = tmp_path / "backup.log"
        log.write_bytes(log.read_bytes().replace(b"pinned", b"Pinned"))
        assert place.json("audit", "verify", code=1)["problems"][0]["line"] == 2
        done = place.run("audit", "review", "--month", "2999-01")
        assert (done.returncode, done.stdout) == (2, "")
        assert "2999-01 has not begun" in done.stderr


class TestReview:
    def test_a_month(self, host: Host) -> None:
        done = host.audit("review", "--month", "2026-10")
        assert exit_code(done) == 0
        assert done.stdout.startswith("# Review of 2026-10: scpln (test)\n")
        assert "The failed run of 2026-10-31 02:30 has no ticket: `disk full really`" in done.stdout

    def test_the_last_one_by_default(self, host: Host) -> None:
        document = host.json("review", "--locale", "ja")
        assert (document["month"], document["locale"]) == (last_month(), "ja")
        assert document["text"].startswith("# 月次レビュー")

    def test_a_document(self, host: Host) -> None:
        document = host.json("review", "--month", "2026-10")
        assert document["unticketed"] == ["2026-10-31T02:30:00+09:00"]

    def test_it_is_posted_nowhere(self, host: Host) -> None:
        before = sorted(host.place.folder.rglob("*"))
        host.audit("review", "--month", "2026-10")
        assert sorted(host.place.folder.rglob("*")) == before
        assert not any(isinstance(entry.event, events.ReviewMade) for entry in host.catalog.entries())

    @pytest.mark.parametrize("month", ["2026", "2999-01", "x"])
    def test_no_such_month(self, host: Host, month: str) -> None:
        done = host.audit("review", "--month", month)
        assert exit_code(done) == 2
        assert "--month" in str(done.exception.format_message())
