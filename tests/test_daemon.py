"""The daemon as systemd runs it: the real command, real signals, a real notify socket, real backups."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

import scpln_backup
from scpln_backup.app import App
from scpln_backup.config.load import load
from scpln_backup.config.schema import Config, StateConfig, WebConfig
from scpln_backup.events import ArtifactDeleted, ArtifactVerified, RetentionFrozen, RunFinished, RunStarted
from scpln_backup.model import Outcome, RunRecord, Trigger
from scpln_backup.observers.log import JournalFormatter, handler, log_event, to_journal
from scpln_backup.service.daemon import Daemon, serve
from scpln_backup.service.reload import keep_until_restart
from scpln_backup.service.signals import capture

WAIT = 20
COMMAND = (sys.executable, "-c", "from scpln_backup.cli.entry import main; main()")
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
PACKAGES = str(Path(scpln_backup.__file__).parents[1])

CONFIG = """
environment = "test"
locale = "en"
[database]
path = "{folder}/scpln.db"
env_file = ""
[backup]
root = "{root}"
[schedule]
timezone = "Asia/Tokyo"
backup = "{slot}"
heartbeat_seconds = 1
[state]
directory = "{folder}/state"
[web]
listen = "{listen}"
"""


def quiet_slot():
    """A daily slot that is twelve hours away, so that none comes in the middle of a test."""
    there = datetime.now(UTC) + timedelta(hours=9 + 12)
    return f"{there.minute} {there.hour} * * *"


class Lines:
    """Lines that another thread adds and tests wait for."""

    def __init__(self):
        self.lines: list[str] = []
        self._condition = threading.Condition()

    def add(self, line):
        with self._condition:
            self.lines.append(line)
            self._condition.notify_all()

    def wait(self, pattern, count=1):
        """Until `count` lines match; the last of them."""
        with self._condition:
            assert self._condition.wait_for(lambda: len(self.found(pattern)) >= count, WAIT), (
                f"{pattern!r} not in {self.lines}"
            )
            return self.found(pattern)[count - 1]

    def found(self, pattern):
        return [line for line in self.lines if re.search(pattern, line)]


class Service:
    """One daemon process, with what it tells systemd and what it logs."""

    def __init__(self, folder, *options, **environ):
        self.told, self.log = Lines(), Lines()
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify = folder / f"notify-{len(list(folder.glob('notify-*')))}"
        self._server.bind(str(notify))
        self.process = subprocess.Popen(
            [*COMMAND, "-c", str(folder / "config.toml"), "serve", *options],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": PACKAGES, "NOTIFY_SOCKET": str(notify), **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._threads = [threading.Thread(target=self._read_log), threading.Thread(target=self._read_notify)]
        for thread in self._threads:
            thread.start()

    def _read_log(self):
        for line in self.process.stderr:
            self.log.add(line.rstrip())

    def _read_notify(self):
        while message := self._server.recv(4096).decode():
            self.told.add(message)

    def ready(self):
        self.told.wait("^READY=1$")
        return self

    @property
    def url(self):
        return self.log.wait("; page http://").rpartition(" ")[2]

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=5) as response:
            return response.read().decode()

    def send(self, number):
        self.process.send_signal(number)

    def stop(self, number=signal.SIGTERM):
        self.send(number)
        return self.process.wait(WAIT)

    def close(self):
        self.process.kill()
        self.process.wait(WAIT)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.sendto(b"", self._server.getsockname())
        for thread in self._threads:
            thread.join(WAIT)
        self._server.close()
        self.process.stdout.close()
        self.process.stderr.close()


class Place:
    """A database, a configuration and the daemons that were started on them."""

    def __init__(self, folder):
        self.folder = folder
        self.services = []
        self.root = folder / "root"
        with contextlib.closing(sqlite3.connect(folder / "scpln.db")) as source, source:
            source.execute("CREATE TABLE jobs (id INTEGER PRIMARY KEY, name TEXT)")
            source.executemany("INSERT INTO jobs (name) VALUES (?)", [("plan",)] * 100)
        self.configure()

    def configure(self, **changes):
        settings = {"folder": self.folder, "root": self.root, "slot": quiet_slot(), "listen": "127.0.0.1:0"}
        (self.folder / "config.toml").write_text(CONFIG.format(**settings | changes))

    def serve(self, *options, **environ):
        service = Service(self.folder, *options, **environ)
        self.services.append(service)
        return service

    def app(self):
        return App.build(load(self.folder / "config.toml", {}))

    def runs(self):
        return self.app().catalog.runs()

    @contextlib.contextmanager
    def locked(self):
        """An application in the middle of a long write: a backup has to wait for it."""
        with contextlib.closing(sqlite3.connect(self.folder / "scpln.db")) as writer:
            writer.execute("BEGIN EXCLUSIVE")
            yield
            writer.rollback()

    def artifacts(self, root=None):
        return sorted(path.name for path in (root or self.root).glob("*/*.db.gz"))


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    yield place
    for service in place.services:
        service.close()


def test_a_service_from_ready_to_stopped(place):
    service = place.serve().ready()
    service.told.wait(r"^STATUS=no backup yet, next \d{4}-\d\d-\d\d \d\d:\d\d$")
    assert 'backup_running{database="scpln",environment="test"} 0.0' in service.get("metrics")
    assert "scpln" in service.get("")
    assert json.loads(service.get("healthz"))["health"] == "warning"
    assert service.stop() == 0
    assert service.told.found("^STOPPING=1$")
    assert service.process.stdout.read() == ""
    assert place.runs() == []
    with pytest.raises(OSError, match="refused"):
        service.get("healthz")
    with place.app().daemon_lock:
        pass


def test_an_idle_daemon_is_small(place):
    service = place.serve().ready()
    service.get("metrics")
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    resident = int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1))
    assert resident < 45 * 1024


def test_interrupt_stops_it_too(place):
    assert place.serve().ready().stop(signal.SIGINT) == 0


def test_ten_thousand_signals_in_a_run_are_one_more_run(place):
    service = place.serve().ready()
    with place.locked():
        service.send(signal.SIGUSR1)
        service.log.wait("backup started")
        for _ in range(10_000):
            service.send(signal.SIGUSR1)
    service.log.wait("backup success", count=2)
    service.told.wait("^STATUS=last backup .* success")
    assert service.stop() == 0
    assert [(run.trigger, run.outcome) for run in place.runs()] == [(Trigger.SIGNAL, Outcome.SUCCESS)] * 2
    assert len(place.artifacts()) == 2


def test_signals_to_a_daemon_that_is_still_starting_are_not_lost(place):
    service = place.serve()
    blocked = 0
    for _ in range(2000):
        status = Path(f"/proc/{service.process.pid}/status").read_text()
        blocked = int(re.search(r"SigBlk:\s+(\w+)", status).group(1), 16)
        if blocked & (1 << signal.SIGUSR1 - 1):
            break
        threading.Event().wait(0.001)
    assert blocked & (1 << signal.SIGUSR1 - 1)
    service.send(signal.SIGUSR1)
    service.send(signal.SIGHUP)
    service.log.wait("backup success")
    service.log.wait("configuration reloaded")


def test_a_backup_at_start(place):
    service = place.serve("--backup-at-start").ready()
    service.log.wait("backup success: trigger=cli")
    assert len(place.artifacts()) == 1


def test_progress_is_shown_while_it_lasts(place):
    service = place.serve().ready()
    with place.locked():
        service.send(signal.SIGUSR1)
        service.told.wait("^STATUS=(starting a backup|looking at source and space|copying)")
        assert 'backup_running{database="scpln",environment="test"} 1.0' in service.get("metrics")
    service.told.wait("^STATUS=last backup")


def test_stop_in_mid_run_leaves_nothing_half_made(place):
    service = place.serve().ready()
    with place.locked():
        service.send(signal.SIGUSR1)
        service.log.wait("backup started")
        assert service.stop() == 0
    (run,) = place.runs()
    assert (run.outcome, run.interrupted) == (Outcome.FAILED, True)
    assert place.artifacts() == []
    assert [path for path in place.root.rglob("*") if path.is_file()] == []


def test_a_missed_slot_is_caught_up_at_start_and_a_killed_one_again(place):
    place.app().catalog.set_slot("backup", datetime.now(UTC) - timedelta(days=3))
    service = place.serve()
    with place.locked():
        service.log.wait("backup started: trigger=catch-up")
        service.process.kill()
        service.process.wait(WAIT)
        again = place.serve()
        again.log.wait("did not reach its end; it is taken again")
    again.log.wait("backup success: trigger=catch-up")
    assert again.stop() == 0
    assert [(run.outcome, run.interrupted) for run in place.runs()] == [
        (Outcome.SUCCESS, False),
        (Outcome.FAILED, True),
    ]
    third = place.serve().ready()
    third.stop()
    assert not third.log.found("is due|taken again")


def test_a_run_waits_for_whoever_has_the_run_lock(place):
    service = place.serve().ready()
    with place.app().house.run_lock("a sweep"):
        service.send(signal.SIGUSR1)
        service.told.wait("^STATUS=waiting to back up: a sweep .* holds ")
    service.log.wait("backup success: trigger=signal")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user, which takes root")
def test_a_run_that_cannot_begin_is_not_passed_over_in_silence(place):
    service = place.serve().ready()
    service.send(signal.SIGUSR1)
    service.log.wait("backup success")
    place.root.rename(place.folder / "away")
    place.root.mkdir()
    os.chown(place.root, 65534, -1)
    service.send(signal.SIGUSR1)
    service.told.wait("^STATUS=last backup .*; the signal run could not begin: .*belongs to user")
    with pytest.raises(urllib.error.HTTPError, match="503") as refused:
        service.get("healthz")
    with refused.value as answer:
        assert "could not begin" in json.loads(answer.read())["reasons"][0]
    assert 'backup_success{database="scpln",environment="test"} 0.0' in service.get("metrics")
    place.root.rmdir()
    (place.folder / "away").rename(place.root)
    service.send(signal.SIGUSR1)
    service.log.wait("backup success", count=2)
    service.told.wait("^STATUS=last backup [^;]*$")


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed (Debian: faketime)")
def test_a_clock_that_is_set_forward_and_back_misses_no_night(place):
    offset = place.folder / "offset"
    offset.write_text("+0s")
    service = place.serve(
        LD_PRELOAD=str(FAKETIME),
        FAKETIME_TIMESTAMP_FILE=str(offset),
        FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    ).ready()
    service.told.wait("^STATUS=no backup yet")
    offset.write_text("+13h")
    service.log.wait(r"the clock moved by \+46[78]\d\d s")
    service.log.wait("backup success: trigger=catch-up")
    offset.write_text("+0s")
    service.log.wait(r"the clock moved by -46[78]\d\d s")
    service.log.wait("the one served last is in the future")
    offset.write_text("+13h")
    service.log.wait("backup success: trigger=catch-up", count=2)
    assert service.stop() == 0
    assert len(place.runs()) == 2


def test_a_reload_takes_over_what_it_can_and_names_the_rest(place, tmp_path):
    service = place.serve().ready()
    url = service.url
    place.configure(slot="15 4 * * *", listen="127.0.0.1:1", root=tmp_path / "elsewhere")
    service.send(signal.SIGHUP)
    service.told.wait("^RELOADING=1\nMONOTONIC_USEC=[0-9]+$")
    service.told.wait("^READY=1$", count=2)
    service.told.wait("^STATUS=.*next .* 04:15$")
    service.log.wait(r"web\.listen has changed; the old value stays until: systemctl restart")
    assert not service.log.found("state.directory has changed")
    assert service.url == url
    assert service.get("healthz")
    service.send(signal.SIGUSR1)
    service.log.wait("backup success")
    assert len(place.artifacts(tmp_path / "elsewhere")) == 1


def test_a_run_under_way_keeps_the_configuration_it_began_with(place, tmp_path):
    service = place.serve().ready()
    with place.locked():
        service.send(signal.SIGUSR1)
        service.log.wait("backup started")
        place.configure(root=tmp_path / "elsewhere")
        service.send(signal.SIGHUP)
        service.log.wait("configuration reloaded")
    service.log.wait("backup success")
    assert len(place.artifacts()) == 1
    assert place.artifacts(tmp_path / "elsewhere") == []


def test_a_wrong_configuration_is_refused_and_the_old_one_stays(place):
    service = place.serve().ready()
    place.configure(slot="61 4 * * *")
    service.send(signal.SIGHUP)
    service.told.wait("^READY=1$", count=2)
    service.told.wait("^STATUS=no backup yet, .*; reload refused, the old configuration stays in force: .*61")
    service.log.wait("^ERROR: reload refused")
    service.send(signal.SIGUSR1)
    service.log.wait("backup success")
    place.configure()
    service.send(signal.SIGHUP)
    service.told.wait("^READY=1$", count=3)
    service.told.wait("^STATUS=last backup [^;]*$")


def test_a_second_daemon_is_told_who_is_there(place):
    first = place.serve().ready()
    second = place.serve()
    assert second.process.wait(WAIT) == 75
    second.log.wait(f"process {first.process.pid}")
    assert second.told.lines == []


def test_a_busy_port_ends_the_start_and_frees_the_lock(place):
    with socket.create_server(("127.0.0.1", 0)) as other:
        place.configure(listen=f"127.0.0.1:{other.getsockname()[1]}")
        service = place.serve()
        assert service.process.wait(WAIT) == 1
    service.log.wait("error: .*another process listens there")
    assert not service.log.found("Traceback")
    assert not service.told.found("READY")
    with place.app().daemon_lock:
        pass


def test_without_systemd_it_works_the_same(place):
    service = place.serve(NOTIFY_SOCKET="")
    service.log.wait("backing up .*; next run .*; page http://")
    service.send(signal.SIGUSR1)
    service.log.wait("backup success")
    assert service.stop() == 0


# In this process, where the parts can be broken


@contextlib.contextmanager
def listening(folder, monkeypatch):
    """A notify socket; yields the lines that arrive."""
    told = Lines()
    path = folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))

        def read():
            while message := server.recv(4096).decode():
                told.add(message)

        thread = threading.Thread(target=read)
        thread.start()
        yield told
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.sendto(b"", str(path))
        thread.join(WAIT)


@pytest.fixture
def told(tmp_path, monkeypatch):
    with listening(tmp_path, monkeypatch) as told:
        yield told


def driven(daemon, act):
    """Runs the daemon's loop here, in the main thread, while `act` goes on in another and then stops it."""
    problems = []

    def drive():
        try:
            act()
        except BaseException as error:
            problems.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=drive)
    try:
        daemon.start()
        thread.start()
        daemon.loop()
    finally:
        daemon.stop()
        thread.join(WAIT)
    if problems:
        raise problems[0]


def fast_app(place):
    """The app with a heartbeat faster than a configuration may ask for."""
    config = load(place.folder / "config.toml", {})
    schedule = msgspec.structs.replace(config.schedule, heartbeat_seconds=0.05)
    return App.build(msgspec.structs.replace(config, schedule=schedule))


@pytest.mark.parametrize("broken", ["scheduler", "web"])
def test_the_sign_of_life_is_withheld_when_a_part_is_dead(place, told, caplog, broken):
    app = fast_app(place)
    stuck = threading.Event()
    stuck.set()
    with capture() as signals:
        daemon = Daemon(
            app,
            load=lambda: app.config,
            build=App.build,
            signals=signals,
            environ={"NOTIFY_SOCKET": "set", "WATCHDOG_USEC": "300000"},
        )
        answers = daemon.web.answers
        daemon._watchdog._web_answers = lambda: answers(timeout=0.2)

        def act():
            told.wait("^WATCHDOG=1$", count=3)
            if broken == "scheduler":
                daemon.scheduler.stop()
            else:
                original = app.status
                app.status = lambda **facts: (stuck.wait(WAIT), original(**facts))[1]
                stuck.clear()
            for _ in range(1000):
                if "no sign of life" in caplog.text:
                    break
                threading.Event().wait(0.01)
            assert "no sign of life for systemd" in caplog.text
            signs = len(told.found("^WATCHDOG=1$"))
            threading.Event().wait(0.5)
            assert len(told.found("^WATCHDOG=1$")) == signs
            stuck.set()

        driven(daemon, act)


def test_a_stop_that_takes_long_asks_for_time(place, told, monkeypatch):
    monkeypatch.setattr("scpln_backup.service.daemon.WIND_UP_STEP_SECONDS", 0.05)
    app = fast_app(place)
    begun, go_on = threading.Event(), threading.Event()

    def slow(trigger, cancel):
        begun.set()
        assert cancel.wait(WAIT)
        told.wait("^EXTEND_TIMEOUT_USEC=30000000\nWATCHDOG=1$", count=2)
        go_on.set()

    app.backup = slow
    with capture() as signals:
        daemon = Daemon(
            app, load=lambda: app.config, build=App.build, signals=signals, environ={"NOTIFY_SOCKET": "set"}
        )

        def act():
            os.kill(os.getpid(), signal.SIGUSR1)
            assert begun.wait(WAIT)

        driven(daemon, act)
    assert go_on.is_set()
    told.wait("^STOPPING=1$")


@pytest.mark.parametrize("show", [True, False])
def test_the_address_is_printed_for_people(place, told, capsys, show):
    def stop_when_ready():
        told.wait("^READY=1$")
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop_when_ready)
    stopper.start()
    config = load(place.folder / "config.toml", {})
    serve(lambda: config, App.build, environ={"NOTIFY_SOCKET": "set"}, show_address=show)
    stopper.join(WAIT)
    expected = r"Status page: http://127\.0\.0\.1:\d+/\n" if show else ""
    assert re.fullmatch(expected, capsys.readouterr().out)


# Signals


def test_the_old_handlers_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM, signal.SIGINT)]
    with capture() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.wait(WAIT) == {signal.SIGINT}
    after = [signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM, signal.SIGINT)]
    assert before == after
    assert signal.set_wakeup_fd(-1) == -1


def test_a_burst_is_each_signal_once():
    with capture() as signals:
        for _ in range(10_000):
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGHUP)
        assert signals.wait(WAIT) == {signal.SIGUSR1, signal.SIGHUP}
        assert signals.wait(0) == frozenset()


def test_signals_held_back_at_the_start_arrive():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGHUP})
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)  # the test runner's other threads do not block it
    with capture() as signals:
        assert signals.wait(WAIT) == {signal.SIGUSR1}
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_thread_can_wake_the_loop_however_often():
    with capture() as signals:
        for _ in range(100_000):
            signals.wake()
        assert signals.wait(WAIT) == frozenset()
        threading.Timer(0.01, signals.wake).start()
        assert signals.wait(WAIT) == frozenset()
    signals.wake()


# Reload


def test_what_is_bound_to_the_process_stays():
    old = Config()
    assert keep_until_restart(old, old) == (old, ())
    new = Config(
        environment="other",
        state=StateConfig(directory="/elsewhere"),
        web=WebConfig(listen="127.0.0.1:1", max_connections=8),
    )
    kept, held_back = keep_until_restart(old, new)
    assert held_back == ("state.directory", "web.listen", "web.max_connections")
    assert kept == Config(environment="other")


# The log


def test_each_line_in_the_journal_has_its_priority():
    def formatted(level, message, trace=None):
        return JournalFormatter("%(message)s").format(logging.LogRecord("x", level, "", 1, message, (), trace))

    assert formatted(logging.ERROR, "one\ntwo") == "<3>one\n<3>two"
    assert formatted(logging.CRITICAL, "x") == "<2>x"
    assert formatted(logging.WARNING, "x") == "<4>x"
    assert formatted(logging.INFO, "x") == "<6>x"
    assert formatted(logging.DEBUG, "x") == "<7>x"
    try:
        1 / 0  # noqa: B018 - the error is the point
    except ZeroDivisionError:
        lines = formatted(logging.ERROR, "a bug", sys.exc_info()).splitlines()
    assert len(lines) > 2
    assert all(line.startswith("<3>") for line in lines)


def test_the_journal_is_known_by_its_device_and_inode(tmp_path):
    with (tmp_path / "stream").open("w") as stream:
        status = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert to_journal(environ, stream)
        assert not to_journal({}, stream)
        assert not to_journal({"JOURNAL_STREAM": "1:2"}, stream)
        assert isinstance(handler(environ, stream).formatter, JournalFormatter)
        assert not isinstance(handler({}, stream).formatter, JournalFormatter)
    assert not to_journal(environ, io.StringIO())


NOW = datetime(2026, 11, 22, 2, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("event", "level", "words"),
    [
        (RunStarted(trigger=Trigger.SCHEDULE, started_at=NOW), logging.INFO, "backup started: trigger=schedule"),
        (ArtifactDeleted(name="a.db.gz", reason="31 days old"), logging.INFO, "deleted a.db.gz: 31 days old"),
        (ArtifactVerified(name="a.db.gz", error=None), logging.INFO, "verified a.db.gz"),
        (ArtifactVerified(name="a.db.gz", error="sha256 differs"), logging.ERROR, "take a new backup"),
        (RetentionFrozen(reason="suspect"), logging.WARNING, "nothing is deleted for now: suspect"),
    ],
)
def test_events_are_logged(caplog, event, level, words):
    caplog.set_level(logging.DEBUG)
    log_event(event)
    (record,) = caplog.records
    assert record.levelno == level
    assert words in record.getMessage()


@pytest.mark.parametrize(
    ("outcome", "level"),
    [
        (Outcome.SUCCESS, logging.INFO),
        (Outcome.DEGRADED, logging.WARNING),
        (Outcome.SUSPECT, logging.ERROR),
        (Outcome.FAILED, logging.ERROR),
    ],
)
def test_a_run_is_logged_by_how_it_ended(caplog, outcome, level):
    caplog.set_level(logging.DEBUG)
    record = RunRecord(
        trigger=Trigger.SIGNAL, started_at=NOW, outcome=outcome, duration_seconds=3.25, error="why; do this"
    )
    log_event(RunFinished(record=record))
    (line,) = caplog.records
    assert line.levelno == level
    assert line.getMessage() == f"backup {outcome}: trigger=signal seconds=3.250; why; do this"


def test_an_interrupted_run_is_a_warning(caplog):
    log_event(RunFinished(record=RunRecord(trigger=Trigger.CLI, started_at=NOW, interrupted=True)))
    (line,) = caplog.records
    assert (line.levelno, line.getMessage()) == (
        logging.WARNING,
        "backup interrupted: trigger=cli; nothing was published",
    )


def test_a_daemon_that_is_gone_is_missed(place):
    service = place.serve().ready()
    service.send(signal.SIGUSR1)
    service.log.wait("backup success")

    def health():
        app = place.app()
        return app.status(now=app.now(), running_since=None).health

    assert health().level == "healthy"
    assert service.stop() == 0
    assert health().level == "warning"
    assert "the daemon is not running" in health().reasons[0]
