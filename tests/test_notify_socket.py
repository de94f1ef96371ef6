"""What systemd is told, read from a real notify socket; and when the sign of life is withheld."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from scpln_backup.model import Outcome, RunRecord, Stage, Trigger
from scpln_backup.service.notify import Notifier, watchdog_interval
from scpln_backup.service.runner import IDLE, Activity
from scpln_backup.service.statusline import DOING, idle, working
from scpln_backup.service.watchdog import Watchdog

TOKYO = ZoneInfo("Asia/Tokyo")
STARTED = datetime(2026, 11, 21, 17, 30, tzinfo=UTC)


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        server.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        yield server


def told(server):
    server.setblocking(False)
    messages = []
    while True:
        try:
            messages.append(server.recv(4096).decode())
        except BlockingIOError:
            return messages


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def notifier(systemd, clock):
    notifier = Notifier({"NOTIFY_SOCKET": "set"}, monotonic=clock)
    yield notifier
    notifier.close()


def test_the_states_of_a_service(systemd, notifier):
    notifier.ready()
    notifier.reloading()
    notifier.alive()
    notifier.extend_timeout(30.0)
    notifier.stopping()
    ready, reloading, alive, extended, stopping = told(systemd)
    assert ready == "READY=1"
    state, monotonic = reloading.splitlines()
    assert state == "RELOADING=1"
    assert int(monotonic.removeprefix("MONOTONIC_USEC=")) > 0
    assert alive == "WATCHDOG=1"
    assert extended.splitlines() == ["EXTEND_TIMEOUT_USEC=30000000", "WATCHDOG=1"]
    assert stopping == "STOPPING=1"


def test_a_status_is_sent_once_and_at_most_once_a_second(systemd, notifier, clock):
    assert notifier.status("copying 1 %") is None
    assert notifier.status("copying 1 %") is None
    clock.now += 0.25
    assert notifier.status("copying 2 %") == pytest.approx(0.75)
    assert told(systemd) == ["STATUS=copying 1 %"]
    clock.now += 0.75
    assert notifier.status("copying 9 %") is None
    assert told(systemd) == ["STATUS=copying 9 %"]


def test_a_status_is_one_line_of_utf_8(systemd, notifier):
    notifier.status("バックアップ先がない:\n/srv/控え é")
    assert told(systemd) == ["STATUS=バックアップ先がない: /srv/控え é"]


def test_without_a_socket_nothing_is_sent_and_nothing_leaks(systemd):
    notifier = Notifier({})
    assert not notifier.connected
    notifier.ready()
    notifier.status("idle")
    notifier.close()
    assert told(systemd) == []


def test_a_socket_that_went_away_harms_nothing(systemd, notifier):
    systemd.close()
    notifier.ready()
    notifier.alive()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "60000000"}, 20.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "4711"}, 20.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_the_watchdog_is_fed_three_times_in_its_time(environ, seconds):
    assert watchdog_interval(environ, 4711) == seconds


class Daemon:
    """The parts that a watchdog looks at."""

    def __init__(self):
        self.scheduler_alive = True
        self.web_answers = True
        self.signs = 0

    def sign(self):
        self.signs += 1

    def watchdog(self):
        return Watchdog(
            10.0,
            scheduler_alive=lambda: self.scheduler_alive,
            web_answers=lambda: self.web_answers,
            give_sign=self.sign,
            started=100.0,
        )


def test_signs_of_life_come_at_their_interval():
    daemon = Daemon()
    watchdog = daemon.watchdog()
    assert watchdog.look(100.0) == 10.0
    assert watchdog.look(104.0) == 6.0
    assert daemon.signs == 0
    assert watchdog.look(110.0) == 10.0
    assert watchdog.look(111.0) == 9.0
    assert daemon.signs == 1


@pytest.mark.parametrize("part", ["scheduler_alive", "web_answers"])
def test_a_dead_part_gives_no_sign_and_is_named_once(part, caplog):
    daemon = Daemon()
    watchdog = daemon.watchdog()
    setattr(daemon, part, False)
    watchdog.look(110.0)
    watchdog.look(120.0)
    assert daemon.signs == 0
    assert len(caplog.records) == 1
    setattr(daemon, part, True)
    watchdog.look(130.0)
    assert daemon.signs == 1


def record(**changes):
    return RunRecord(trigger=Trigger.SCHEDULE, started_at=STARTED, **changes)


def test_the_idle_line_names_last_and_next_in_local_time():
    following = datetime(2026, 11, 22, 17, 30, tzinfo=UTC)
    line = idle(record(outcome=Outcome.SUCCESS), following, TOKYO)
    assert line == "last backup 2026-11-22 02:30 success, next 2026-11-23 02:30"
    assert idle(None, following, TOKYO) == "no backup yet, next 2026-11-23 02:30"
    assert idle(record(interrupted=True), None, TOKYO) == "last backup 2026-11-22 02:30 interrupted"


def test_the_working_line_says_what_and_how_far():
    assert working(IDLE) is None
    started = Activity(trigger=Trigger.CLI, since=STARTED)
    assert working(started) == "starting a backup"
    compressing = Activity(trigger=Trigger.CLI, since=STARTED, stage=Stage.COMPRESS, percent=43)
    assert working(compressing) == "compressing 43 %"
    assert working(Activity(trigger=Trigger.CLI, waiting_for="sweep holds run.lock")) == (
        "waiting to back up: sweep holds run.lock"
    )
    assert set(DOING) == set(Stage)
