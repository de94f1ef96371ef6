"""What the doctor makes of facts: pure decisions, without a host."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scpln_backup.config.schema import Config, RetentionConfig, ServiceConfig
from scpln_backup.model import DrillRecord, Outcome, RunRecord, State, Trigger
from scpln_backup.operations.doctor import backups, clock, commands, database, service, units
from scpln_backup.operations.doctor.finding import Grade, Verdict, bad, doubtful, finding, good, together
from scpln_backup.rules.slots import Schedule
from scpln_backup.stages.openers import Opener
from support.clinic import OPEN, unit

if TYPE_CHECKING:
    from scpln_backup.operations.doctor.units import Sandbox

TOKYO = ZoneInfo("Asia/Tokyo")
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=TOKYO)  # a Sunday
DAY = 86_400.0


class TestFindings:
    def test_what_is_wrong_with_one_counts_for_all(self) -> None:
        mixed = together([good("a is fine"), doubtful("b is odd", "mend b"), bad("c is broken", "mend c")])
        assert mixed == Verdict(Grade.CRITICAL, "b is odd; c is broken", "mend b; mend c")
        assert together([good("a"), good("b")]) == Verdict(Grade.OK, "a; b", None)
        assert together([doubtful("a", "mend it"), doubtful("b", "mend it")]).advice == "mend it"

    def test_a_finding_is_on_one_line(self) -> None:
        made = finding("x", "y", bad("first\nsecond", "do\n  this"))
        assert (made.ok, made.detail, made.advice) == (False, "first second", "do this")


class TestDrill:
    WEEKLY = Schedule("0 4 * * 0", TOKYO)

    def record(self, days_ago: float, outcome: Outcome = Outcome.SUCCESS) -> DrillRecord:
        at = NOW - timedelta(days=days_ago)
        return DrillRecord(trigger=Trigger.SCHEDULE, started_at=at, outcome=outcome, restore_seconds=4.0, error="no")

    @pytest.mark.parametrize(("days_ago", "grade"), [(0.3, Grade.OK), (7.2, Grade.OK), (7.4, Grade.WARNING)])
    def test_two_that_were_due_must_not_pass(self, days_ago: float, grade: Grade) -> None:
        """The last was due today at 04:00, the one before it a week ago: eight hours before noon."""
        assert commands.judge_drill(self.record(days_ago), self.WEEKLY, NOW, TOKYO).grade is grade

    def test_what_is_said(self) -> None:
        verdict = commands.judge_drill(self.record(30), self.WEEKLY, NOW, TOKYO)
        assert verdict.detail == "the last one is of 2026-10-23 12:00, 30 d ago, and two have been due since"
        failed = commands.judge_drill(self.record(0.1, Outcome.FAILED), self.WEEKLY, NOW, TOKYO)
        assert (failed.grade, failed.detail) == (Grade.WARNING, "the drill of 2026-11-22 09:36 failed: no")
        degraded = commands.judge_drill(self.record(0.1, Outcome.DEGRADED), self.WEEKLY, NOW, TOKYO)
        assert degraded.detail.endswith("; a restore took 4.0 s")


class TestRuns:
    @pytest.mark.parametrize(
        ("outcome", "grade", "words"),
        [
            (Outcome.SUCCESS, Grade.OK, "success in 3.0 s"),
            (Outcome.DEGRADED, Grade.WARNING, "a later step failed: why"),
            (Outcome.SUSPECT, Grade.WARNING, "is suspect: why"),
            (Outcome.FAILED, Grade.CRITICAL, "failed: why"),
        ],
    )
    def test_how_the_last_one_ended(self, outcome: Outcome, grade: Grade, words: str) -> None:
        run = RunRecord(
            trigger=Trigger.CLI, started_at=NOW, outcome=outcome, error="why", artifact="a.db.gz", duration_seconds=3.0
        )
        verdict = backups.judge_run(run, TOKYO)
        assert verdict.grade is grade
        assert words in verdict.detail
        if outcome is Outcome.SUSPECT:
            assert "verify a.db.gz --accept-shrink" in (verdict.advice or "")

    def test_states(self) -> None:
        assert backups.judge_states(Counter({State.VERIFIED: 3, State.SUSPECT: 1}), 2048).detail == "4 in all, 2.0 KiB"


class TestRetention:
    @pytest.mark.parametrize(
        ("config", "interval", "grade"),
        [
            (RetentionConfig(), DAY, Grade.OK),
            (RetentionConfig(keep_verified=0), DAY, Grade.WARNING),
            (RetentionConfig(days=1, keep_verified=1), DAY, Grade.WARNING),
            (RetentionConfig(days=1, keep_verified=1), DAY / 24, Grade.OK),
            (RetentionConfig(days=7, keep_verified=1), 7 * DAY, Grade.WARNING),
            (RetentionConfig(days=0, keep_verified=1, keep_last=5), DAY, Grade.OK),
        ],
    )
    def test_rules_that_keep_too_little(self, config: RetentionConfig, interval: float, grade: Grade) -> None:
        assert backups.judge_retention(config, interval).grade is grade


class TestSchedule:
    def judged(self, cron: str, hours: int = 24, zone: ZoneInfo = TOKYO, start: datetime = NOW) -> Grade:
        slots = []
        for slot in Schedule(cron, zone).after(start):
            slots.append(slot)
            if len(slots) == 300:
                break
        return backups.judge_schedule(slots, hours, zone).grade

    def test_the_alarm_must_wait_for_the_next_run(self) -> None:
        assert self.judged("30 2 * * *") is Grade.OK
        assert self.judged("0 */6 * * *") is Grade.OK
        assert self.judged("30 2 * * 0") is Grade.WARNING
        assert self.judged("30 2 * * 0", hours=24 * 7) is Grade.OK
        assert self.judged("30 2 1 * *", hours=24 * 30) is Grade.WARNING

    @pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Nuuk", "Australia/Lord_Howe"])
    def test_a_change_of_the_clocks_is_no_reason(self, zone: str) -> None:
        start = datetime(2026, 3, 1, tzinfo=ZoneInfo(zone))
        assert self.judged("30 2 * * *", zone=ZoneInfo(zone), start=start) is Grade.OK
        assert self.judged("30 23 * * *", zone=ZoneInfo(zone), start=start) is Grade.OK


class TestOpeners:
    def test_who_has_it_open(self) -> None:
        api = Opener(12, "uvicorn", "scpln-api.service")
        shell = Opener(34, "sqlite3", "session-2.scope")
        assert database.opened([], ["scpln-api.service"], sees_all=True) == good("open in no process")
        assert "root only" in database.opened([], [], sees_all=False).detail
        assert database.opened([api], ["scpln-api.service"], sees_all=True).grade is Grade.OK
        verdict = database.opened([api, shell], ["scpln-api.service"], sees_all=True)
        assert verdict.grade is Grade.WARNING
        assert "sqlite3 (process 34, session-2.scope)" in verdict.detail
        assert "uvicorn" not in verdict.detail


class TestUnits:
    def test_the_daemons_unit(self) -> None:
        assert service.judge_unit(unit(), 0.0) == good("scpln-backup.service, enabled")
        cases = {
            "does not start at boot": unit(file_state="disabled"),
            "systemd has the old one": unit(needs_reload=True),
            "no watchdog": unit(watchdog_seconds=None),
        }
        for words, case in cases.items():
            verdict = service.judge_unit(case, 0.0)
            assert verdict.grade is Grade.WARNING
            assert words in verdict.detail
        assert "systemd has the old one" in service.judge_unit(unit(), 0.0, [Path("/etc/x.conf")]).detail
        assert service.judge_unit(unit(watchdog_seconds=None, active_state="inactive"), 0.0).grade is Grade.OK

    def test_a_unit_that_was_changed_since_it_was_started(self) -> None:
        started = unit(entered_at=1000.0)
        assert service.judge_unit(started, 1000.9).grade is Grade.OK, "systemd tells whole seconds"
        verdict = service.judge_unit(started, 1001.0)
        assert (verdict.grade, verdict.advice) == (Grade.WARNING, "systemctl restart scpln-backup.service")

    def test_the_applications_units(self) -> None:
        config = ServiceConfig()
        assert commands.judge_unit(unit(name="a.service"), config) == good("a.service, active")
        assert "no such unit" in commands.judge_unit(unit(load_state="not-found"), config).detail
        assert "masked" in commands.judge_unit(unit(load_state="masked"), config).detail
        slow = commands.judge_unit(unit(name="a.service", stop_seconds=300.0), config)
        assert (slow.grade, slow.advice) == (Grade.WARNING, "set [service] stop_timeout_seconds to 300")
        assert commands.judge_unit(unit(stop_seconds=None), config).grade is Grade.OK, "no limit of its own"

    def test_the_timer_of_the_alarm(self) -> None:
        assert service.judge_timer(unit(name="t.timer")).grade is Grade.OK
        assert "not installed" in service.judge_timer(unit(load_state="not-found")).detail
        assert "inactive" in service.judge_timer(unit(active_state="inactive")).detail
        assert "disabled" in service.judge_timer(unit(file_state="disabled")).detail

    def test_the_folders_that_it_makes(self) -> None:
        shipped = unit(
            made=("/var/lib/scpln-backup",), prepares="{ argv[]=/bin/sh -c for d in /var/backups/scpln /x; do …"
        )
        made = ["/var/lib/scpln-backup", "/var/backups/scpln", "/x"]
        assert all(shipped.makes(Path(folder)) for folder in made)
        assert not any(
            shipped.makes(Path(folder)) for folder in ("/var/backups", "/var/backups/scpln2", "/backups/scpln")
        )

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("1min 30s", 90.0),
            ("5min", 300.0),
            ("infinity", None),
            ("0", None),
            ("500ms", 0.5),
            ("1month 2w 3d 4h 5min 6s", 2_629_800.0 + 14 * DAY + 3 * DAY + 4 * 3600 + 300 + 6),
            ("", None),
        ],
    )
    def test_time_spans(self, text: str, expected: float | None) -> None:
        assert units.seconds(text) == expected


class TestConfigInForce:
    def test_what_differs_is_named(self) -> None:
        before = Config()
        assert service.judge_in_force(before, before, "x.service").grade is Grade.OK
        retention = msgspec.structs.replace(before, retention=RetentionConfig(days=3, keep_last=2))
        verdict = service.judge_in_force(before, retention, "x.service")
        assert verdict.detail == "the daemon works with an older [retention] days, [retention] keep_last"
        assert verdict.advice == "systemctl reload x.service"
        state = msgspec.structs.replace(retention, state=msgspec.structs.replace(before.state, directory="/srv/state"))
        assert service.judge_in_force(before, state, "x.service").advice == "systemctl restart x.service"


def box(**more: object) -> Sandbox:
    return msgspec.structs.replace(OPEN, **more)


class TestSandbox:
    SHIPPED = box(
        protect_system="strict",
        protect_home="yes",
        private_tmp=True,
        writable=("/var/backups/scpln", "/var/log/scpln", "/opt/scpln/data", "/var/lib/scpln-backup"),
    )

    @pytest.mark.parametrize(
        ("path", "write", "words"),
        [
            ("/var/backups/scpln", True, None),
            ("/var/backups/scpln/2026", True, None),
            ("/var/backups/scpln2", True, "no ReadWritePaths= names it"),
            ("/mnt/backups", True, "no ReadWritePaths= names it"),
            ("/mnt/backups", False, None),
            ("/home/app/data", False, "ProtectHome=yes"),
            ("/root/x", True, "ProtectHome=yes"),
            ("/tmp/data", False, "PrivateTmp="),
        ],
    )
    def test_the_shipped_unit(self, path: str, write: bool, words: str | None) -> None:
        why = service.refusal(self.SHIPPED, path, write=write)
        assert (why is None) == (words is None)
        assert words is None or words in (why or "")

    def test_the_deepest_setting_counts(self) -> None:
        nested = box(protect_system="strict", writable=("/opt",), read_only=("/opt/scpln/data",))
        assert service.refusal(nested, "/opt/scpln", write=True) is None
        assert service.refusal(nested, "/opt/scpln/data", write=True) is not None
        deeper = box(protect_system="strict", writable=("/opt/scpln/data/x",), read_only=("/opt/scpln/data",))
        assert service.refusal(deeper, "/opt/scpln/data/x", write=True) is None
        hidden = box(writable=("/opt",), hidden=("/opt/scpln",))
        assert "InaccessiblePaths=" in (service.refusal(hidden, "/opt/scpln/data", write=False) or "")

    def test_a_bind_mount_shows_what_is_hidden(self) -> None:
        bound = box(protect_home="tmpfs", private_tmp=True, bound=("/home/app",), writable=("/home/app",))
        assert service.refusal(bound, "/home/app/data", write=True) is None
        assert service.refusal(bound, "/home/other", write=False) is not None

    def test_without_protection_all_is_open(self) -> None:
        assert service.refusal(OPEN, "/mnt/backups", write=True) is None
        assert service.refusal(box(protect_system="full"), "/etc/x", write=True) is not None
        assert service.refusal(box(protect_system="full"), "/srv/x", write=True) is None
        assert service.refusal(box(protect_home="read-only"), "/home/app", write=True) is not None
        assert service.refusal(box(protect_home="read-only"), "/home/app", write=False) is None

    @given(
        path=st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts)),
        writable=st.lists(st.sampled_from(["/a", "/a/b", "/b", "/a/a/a"]), max_size=3).map(tuple),
    )
    def test_what_may_be_written_lies_in_a_writable_folder(self, path: str, writable: tuple[str, ...]) -> None:
        strict = box(protect_system="strict", writable=writable)
        inside = any(path == folder or path.startswith(f"{folder}/") for folder in writable)
        assert (service.refusal(strict, path, write=True) is None) == inside
        assert service.refusal(strict, path, write=False) is None


class TestClock:
    def test_a_clock_that_nothing_keeps(self) -> None:
        assert clock.judge_clock(16_000_000).grade is Grade.WARNING
        assert clock.judge_clock(12_345) == good("synchronised, within 12 ms")
        assert clock.judge_clock(0) == good("synchronised, within 1 ms")
