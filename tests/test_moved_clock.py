"""The real daemon under a clock that jumps: each local day has its backup once, whatever the clock does.

faketime moves the wall clock of the daemon and of its worker; the monotonic clock goes on as on a real machine
whose clock is set, and files keep their real times.
"""

from __future__ import annotations

import json
import re
import signal
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from scpln_backup.model import Outcome, Trigger
from scpln_backup.records.catalog import Catalog
from support.daemon_process import DaemonProcess
from support.place import Place

LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib")
FAKETIME = next((path for folder in LIBRARIES if (path := Path(folder, "faketime/libfaketimeMT.so.1")).exists()), None)

pytestmark = pytest.mark.skipif(FAKETIME is None, reason="the clock is moved with faketime, which is not installed")

TOKYO = ZoneInfo("Asia/Tokyo")
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
DUE = "the backup of .* is due"


def at(text, zone=UTC):
    return datetime.fromisoformat(text).replace(tzinfo=zone).astimezone(UTC)


class Clock:
    """The wall clock of whatever runs with `environment`: ahead of the real one by what the file says."""

    def __init__(self, folder):
        self._file = folder / "clock"
        self._ahead = 0.0
        self.environment = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            # Else every wait with a timeout, in any thread, would go wrong.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Its mending of condition variables, meant for an older glibc, makes every timed wait on one return at
            # once: Python's threads would then wait for the interpreter's lock at full speed, fifty times slower.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            "NO_FAKE_STAT": "1",
        }

    def set(self, moment):
        self._ahead = moment.timestamp() - time.time()
        new = self._file.with_name("clock.new")
        new.write_text(f"{self._ahead:+.3f}")
        new.rename(self._file)  # whole at every look

    def now(self):
        return datetime.fromtimestamp(time.time() + self._ahead, UTC)


class Night:
    """A place, its clock, and the daemons that work there one after another."""

    def __init__(self, folder):
        self.place = Place(folder)
        self.clock = Clock(folder)

    def configure(self, zone=TOKYO, **schedule):
        self.place.config.write_text(
            self.place.config.read_text().replace('timezone = "Asia/Tokyo"', f'timezone = "{zone.key}"')
        )
        self.place.configure("schedule", heartbeat_seconds=1, **schedule)

    def daemon(self):
        return DaemonProcess(self.place, **self.clock.environment)

    def runs(self):
        """Oldest first."""
        return Catalog.reader(self.place.state / "catalog.db", UTC).runs(limit=-1)[::-1]

    def move(self, daemon, moment):
        """Set the clock, and wait until the daemon has looked whether a backup is due.

        A reload looks at once; the heartbeat would take up to a second for each of hundreds of steps.
        """
        self.clock.set(moment)
        count = len(daemon.lines("configuration reloaded"))
        daemon.send(signal.SIGHUP)
        daemon.wait_for("configuration reloaded", count + 1)


@pytest.fixture
def night(tmp_path):
    return Night(tmp_path)


BERLIN = ZoneInfo("Europe/Berlin")
NIGHTS = {
    # 02:30 does not exist on the 29th: the backup begins when the gap ends.
    "spring": (BERLIN, ["2026-03-28 02:30+01:00", "2026-03-29 03:00+02:00", "2026-03-30 02:30+02:00"]),
    # 02:30 comes twice on the 25th: the first one counts.
    "autumn": (BERLIN, ["2026-10-24 02:30+02:00", "2026-10-25 02:30+02:00", "2026-10-26 02:30+01:00"]),
    "Tokyo": (TOKYO, ["2026-03-28 02:30+09:00", "2026-03-29 02:30+09:00", "2026-03-30 02:30+09:00"]),
}


# Closest where an hour is missing or comes twice.
STEPS = (0.01, 0.25, 0.5, 0.75, 0.99, 1.01, 1.25, 1.5, 2, 3, 5, 8, 12, 16, 20, 22.5)


@pytest.mark.parametrize("name", NIGHTS)
def test_each_local_day_has_its_backup_once(night, name):
    zone, expected = NIGHTS[name]
    slots = [datetime.fromisoformat(text).astimezone(UTC) for text in expected]
    night.configure(zone)
    night.clock.set(slots[0] - 2 * HOUR)
    with night.daemon() as daemon:
        for number, slot in enumerate(slots, 1):
            night.move(daemon, slot - SECOND)  # from here the slot's own timer counts
            daemon.wait_for(re.escape(f"the backup of {slot.astimezone(zone)} is due (schedule)"))
            daemon.wait_for("backup (success|degraded): trigger=schedule", number)
            for hours in STEPS:
                night.move(daemon, slot + hours * HOUR)
        daemon.stop()
        assert len(daemon.lines(DUE)) == len(slots)
    runs = night.runs()
    assert [run.trigger for run in runs] == [Trigger.SCHEDULE] * len(slots)
    assert {run.outcome for run in runs} <= {Outcome.SUCCESS, Outcome.DEGRADED}
    assert all(timedelta() <= run.started_at - slot < 5 * SECOND for run, slot in zip(runs, slots, strict=True))


def test_a_clock_set_back_by_an_hour_repeats_nothing(night):
    night.configure()
    slot = at("2026-06-01 02:30", TOKYO)
    night.clock.set(slot - HOUR)
    with night.daemon() as daemon:
        night.move(daemon, slot - SECOND)
        daemon.wait_for("backup success: trigger=schedule")
        night.move(daemon, night.clock.now() - HOUR)
        daemon.wait_for("the clock moved by -36")
        night.move(daemon, slot - SECOND)
        while night.clock.now() < slot + SECOND:  # the slot comes a second time
            time.sleep(0.05)
        night.move(daemon, slot + HOUR)
        assert len(daemon.lines(DUE)) == 1
        night.move(daemon, slot + DAY - SECOND)
        daemon.wait_for("backup success: trigger=schedule", 2)
        daemon.stop()
    assert len(night.runs()) == 2


def test_a_clock_that_was_days_ahead_counts_again_from_when_it_is_right(night):
    night.configure()
    slot = at("2026-06-10 02:30", TOKYO)
    night.clock.set(slot - HOUR)
    with night.daemon() as daemon:
        night.move(daemon, slot - SECOND)
        daemon.wait_for("backup success: trigger=schedule")
        night.move(daemon, slot - 5 * DAY + HOUR)
        daemon.wait_for("the one served last is in the future")
        night.move(daemon, slot - 4 * DAY - SECOND)
        daemon.wait_for("backup degraded: trigger=schedule .*nothing was swept: the (newest artifact|clock)")
        night.move(daemon, slot - 4 * DAY + HOUR)
        daemon.stop()
        assert len(daemon.lines(DUE)) == 2


def test_a_slot_missed_while_the_daemon_was_stopped_is_caught_up_once(night):
    night.configure()
    slot = at("2026-06-01 02:30", TOKYO)
    night.clock.set(slot - HOUR)
    with night.daemon() as daemon:
        daemon.stop()
    night.clock.set(at("2026-06-01 09:00", TOKYO))
    with night.daemon() as daemon:
        daemon.wait_for(r"the backup of 2026-06-01 02:30:00\+09:00 is due .catch-up.")
        daemon.wait_for("backup success: trigger=catch-up")
        night.move(daemon, slot + 12 * HOUR)
        daemon.stop()
    with night.daemon() as daemon:
        night.move(daemon, slot + 20 * HOUR)
        daemon.stop()
        assert daemon.lines(f"{DUE}|taken again") == []
    assert [(run.trigger, run.outcome) for run in night.runs()] == [(Trigger.CATCH_UP, Outcome.SUCCESS)]


def test_without_catching_up_a_missed_slot_is_passed_over(night):
    night.configure(catch_up=False)
    slot = at("2026-06-01 02:30", TOKYO)
    night.clock.set(slot - HOUR)
    with night.daemon() as daemon:
        daemon.stop()
    night.clock.set(at("2026-06-01 09:00", TOKYO))
    with night.daemon() as daemon:
        daemon.wait_for("the backup of 2026-06-01 02:30:00.09:00 was missed; passed over")
        night.move(daemon, slot + 3 * DAY + HOUR)
        daemon.wait_for("the backup of 2026-06-04 02:30:00.09:00 was missed; passed over")
        assert night.runs() == []
        night.move(daemon, slot + 4 * DAY - SECOND)
        daemon.wait_for("backup success: trigger=schedule")
        daemon.stop()


def test_a_jump_of_days_forward_is_one_backup_and_deletes_nothing(night):
    night.configure()
    today = datetime.now(UTC)
    old = night.place.legacy("scpln-20250101_0230.db.gz", days_old=20)
    night.clock.set(today)
    with night.daemon() as daemon:
        daemon.send(signal.SIGUSR1)
        daemon.wait_for("backup success: trigger=signal")
        night.clock.set(today + 40 * DAY)
        # No reload: the daemon itself notices.
        daemon.wait_for("the clock moved by .345")
        daemon.wait_for("nothing is deleted for now: the clock jumped forward by 40 d")
        daemon.wait_for("backup degraded: trigger=catch-up .*the clock jumped forward by 40 d")
        night.move(daemon, today + 40 * DAY + timedelta(minutes=1))
        assert len(daemon.lines(DUE)) == 1
        with urllib.request.urlopen(f"{daemon.url}healthz", timeout=5) as answer:
            health = json.load(answer)
        assert health["health"] == "warning"
        assert any("retention is frozen: the clock jumped forward" in reason for reason in health["reasons"])
        assert old.exists()
        swept = night.place.run("sweep", "--accept-clock", env=night.clock.environment)
        assert swept.returncode == 0, swept
        assert not old.exists()
        daemon.stop()


def test_a_machine_that_starts_in_1970_is_set_right_by_the_network(night):
    night.configure()
    night.clock.set(at("1970-01-02 00:00"))
    with night.daemon() as daemon:
        night.clock.set(at("2026-06-01 09:00", TOKYO))
        daemon.wait_for("the clock moved by")
        daemon.wait_for("backup success: trigger=catch-up artifact=scpln-20260601_0900")
        night.move(daemon, at("2026-06-02 02:29:59", TOKYO))
        daemon.wait_for("backup success: trigger=schedule")
        daemon.stop()
        assert len(daemon.lines(DUE)) == 2
