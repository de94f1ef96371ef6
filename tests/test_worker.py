"""stages/worker.py through operations/workbench.py: the real process, from the request to its end.

Where a test must find the worker at work, another process holds the source's lock, so that it waits there for
as long as the test needs.
"""

import gzip
import hashlib
import json
import os
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from scpln_backup.errors import (
    BackupError,
    HotJournalError,
    LockHeldError,
    ProofError,
    SourceBusyError,
    SourceCorruptError,
    SourceError,
    SourceMissingError,
    SourceTruncatedError,
    StoppedError,
)
from scpln_backup.events import Announcer, Progressed, StageEntered
from scpln_backup.model import Compression, Preset, Stage
from scpln_backup.operations.workbench import work
from scpln_backup.stages import pack, reuse, worker
from scpln_backup.stages.snapshot import Limits
from scpln_backup.support.locks import Lock
from support import databases
from support.databases import names
from support.writer import Session


@pytest.fixture(scope="module")
def grown(tmp_path_factory) -> Path:
    return databases.grow(tmp_path_factory.mktemp("grown") / "scpln.db", 4)


class Bench:
    """A source, a staging folder, a lock that is held, and the events of what was done."""

    def __init__(self, folder: Path, grown: Path) -> None:
        self.source = folder / "data" / "scpln.db"
        self.staging = folder / "staging"
        self.lock = Lock(folder / "state" / "run.lock", "a test")
        self.source.parent.mkdir()
        self.staging.mkdir()
        shutil.copyfile(grown, self.source)
        self.events = []
        self.cancel = threading.Event()

    def request(self, **changes) -> worker.Request:
        usual = worker.Request(
            source=str(self.source),
            copy=str(self.staging / "copy.db"),
            artifact=str(self.staging / "artifact"),
            compression=Compression.GZIP,
            preset=Preset.BALANCED,
            limits=Limits(30.0, 30.0, 2),
        )
        return msgspec.structs.replace(usual, **changes)

    def work(self, *observers, **changes) -> worker.Done:
        announce = Announcer(self.events.append, *observers)
        with self.lock:
            return work(self.request(**changes), lock_fd=self.lock.fd, cancel=self.cancel, announce=announce)

    def refusal(self, kind: type[BackupError], **changes) -> str:
        """Work, expect exactly `kind`; its message is one line, and the worker is gone."""
        with pytest.raises(BackupError) as caught:
            self.work(**changes)
        assert type(caught.value) is kind
        assert "\n" not in str(caught.value)
        assert workers() == []
        return str(caught.value)


@pytest.fixture
def bench(tmp_path, grown) -> Bench:
    return Bench(tmp_path, grown)


def workers(parent: int | None = None) -> list[int]:
    """The worker processes that a process has started and not yet waited for."""
    tasks = Path(f"/proc/{parent or os.getpid()}/task").glob("*/children")
    children = [word for path in tasks for word in path.read_text().split()]
    return [int(pid) for pid in children if worker.__name__.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]


def wait_until_gone(pid: int) -> None:
    """Wait for the end of a process that need not be a child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], 30)[0], f"process {pid} still lives"
    finally:
        os.close(descriptor)


class OnceWaiting:
    """An observer that acts when the worker has begun, and waits for the source's lock."""

    def __init__(self, action) -> None:
        self._action = action

    def __call__(self, event) -> None:
        if event == StageEntered(stage=Stage.SNAPSHOT):
            (pid,) = workers()
            self._action(pid)


# A run


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
@pytest.mark.parametrize("compression", list(Compression))
def test_a_run(bench, journal_mode, compression):
    with closing(sqlite3.connect(bench.source)) as db:
        db.execute(f"PRAGMA journal_mode = {journal_mode}")
        runs = db.execute("SELECT count(*) FROM runs").fetchone()[0]
    before = bench.source.read_bytes()
    done = bench.work(compression=compression)

    artifact = bench.staging / "artifact"
    assert names(bench.staging) == ["artifact"]
    stored = artifact.read_bytes()
    assert (done.artifact_sha256, done.artifact_bytes) == (hashlib.sha256(stored).hexdigest(), len(stored))
    tool = ["gunzip", "-c"] if compression is Compression.GZIP else ["zstd", "-dcq"]
    raw = subprocess.run(tool, input=stored, check=True, capture_output=True).stdout
    if journal_mode == "delete":
        assert raw == before
    restored = bench.staging / "restored.db"
    restored.write_bytes(raw)
    assert databases.content_sha256(restored) == databases.content_sha256(bench.source)
    assert (done.fingerprint.sha256, done.fingerprint.size_bytes) == (hashlib.sha256(raw).hexdigest(), len(raw))
    assert done.fingerprint.page_count * done.fingerprint.page_size == len(raw)
    assert done.fingerprint.tables["runs"] == runs
    assert set(done.stage_seconds) == {Stage.SNAPSHOT, Stage.CHECK, Stage.COMPRESS, Stage.PROVE}
    assert all(seconds >= 0 for seconds in done.stage_seconds.values())
    assert (done.snapshot.writer_blocked_seconds > 0) == (journal_mode == "delete")
    assert done.snapshot.taken_at.utcoffset() is not None
    assert bench.source.read_bytes() == before
    assert workers() == []


def test_what_is_announced(bench):
    bench.work()
    assert [event.stage for event in bench.events if isinstance(event, StageEntered)] == [
        Stage.SNAPSHOT,
        Stage.COMPRESS,
        Stage.CHECK,
        Stage.PROVE,
    ]
    size = bench.source.stat().st_size
    for event in bench.events:
        if isinstance(event, Progressed):
            assert 0 < event.done <= event.total == size


def test_presets_reach_the_worker(bench):
    sizes = []
    for preset in Preset:
        sizes.append(bench.work(preset=preset).artifact_bytes)
        (bench.staging / "artifact").unlink()
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)


# An unchanged source


def older(bench: Bench, done: worker.Done) -> reuse.Older:
    """The artifact of an earlier run, out of the staging folder's way."""
    path = (bench.staging / "artifact").rename(bench.staging.parent / "older")
    return reuse.Older(
        path=str(path),
        compression=Compression.GZIP,
        bytes=done.artifact_bytes,
        sha256=done.artifact_sha256,
        fingerprint=done.fingerprint,
    )


def test_an_older_artifact_is_used_again(bench):
    first = bench.work()
    known = older(bench, first)
    bench.events.clear()
    done = bench.work(older=known)
    assert done.reused
    assert names(bench.staging) == ["artifact"]
    assert (bench.staging / "artifact").read_bytes() == Path(known.path).read_bytes()
    assert (done.fingerprint, done.artifact_sha256, done.artifact_bytes) == (
        first.fingerprint,
        first.artifact_sha256,
        first.artifact_bytes,
    )
    assert done.snapshot.taken_at > first.snapshot.taken_at
    stages = [event.stage for event in bench.events if isinstance(event, StageEntered)]
    assert stages == list(done.stage_seconds) == [Stage.SNAPSHOT, Stage.PROVE]


def test_an_older_artifact_that_is_damaged(bench):
    known = older(bench, bench.work())
    Path(known.path).write_bytes(Path(known.path).read_bytes()[:-9])
    done = bench.work(older=known)
    assert (done.reused, done.older_damage) == (False, "the last block is cut off")
    assert gzip.decompress((bench.staging / "artifact").read_bytes()) == bench.source.read_bytes()


def test_an_older_artifact_that_is_gone(bench):
    known = older(bench, bench.work())
    Path(known.path).unlink()
    done = bench.work(older=known)
    assert (done.reused, done.older_damage) == (False, None)
    assert done.older_unread == f"{known.path}: No such file or directory"


@pytest.mark.parametrize("what", ["flipped", "gone"])
def test_an_older_artifact_that_goes_bad_while_it_is_used(bench, monkeypatch, what):
    """It was compared, from memory perhaps; the source is still there to make another one of."""
    known = older(bench, bench.work())
    duplicate = reuse.duplicate

    def too_late(*arguments):
        if what == "gone":
            Path(known.path).unlink()
        else:
            with Path(known.path).open("r+b") as file:
                file.seek(5000)
                file.write(b"?")
        duplicate(*arguments)

    class Quiet:
        def progress(self, _stage):
            return lambda _done, _total: None

    monkeypatch.setattr(reuse, "duplicate", too_late)
    monkeypatch.setattr(worker.niceness, "stand_back", lambda: None)  # this process should not
    done = worker.run(bench.request(older=known), Quiet())
    assert not done.reused
    assert gzip.decompress((bench.staging / "artifact").read_bytes()) == bench.source.read_bytes()
    assert known.path in done.older_unread
    assert "\n" not in done.older_unread


# The application comes first

_LOOK = """
import json, os, subprocess, sys
import msgspec
from scpln_backup.stages import pack, reuse, worker

class Reporter:
    seen = {}

    def send(self, message):
        asked = ["ionice", "-p", str(os.getpid())]
        disk = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[0].rstrip(":")
        self.seen[message.stage] = [os.getpriority(os.PRIO_PROCESS, 0), disk]

    def progress(self, stage):
        self.send(worker.Progress(stage, 0, 0))
        return lambda done, total: None

worker.run(msgspec.json.decode(sys.argv[1], type=worker.Request), Reporter())
print(json.dumps(Reporter.seen))
"""


@pytest.mark.parametrize("unchanged", [False, True])
def test_it_stands_back_when_nobody_waits_for_it_any_more(bench, unchanged):
    """Under the lock a lower priority would make the writers wait for longer (test_snapshot looks at the disk's)."""
    request = bench.request(older=older(bench, bench.work()) if unchanged else None)
    command = [sys.executable, "-c", _LOOK, msgspec.json.encode(request)]
    seen = json.loads(subprocess.run(command, check=True, capture_output=True, start_new_session=True).stdout)
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    assert seen.pop("snapshot")[0] == usual
    assert set(seen) == ({"prove"} if unchanged else {"compress", "check", "prove"})
    # Another snapshot may follow on a reuse that fails.
    assert set(map(tuple, seen.values())) == {(usual if unchanged else min(19, usual + 10), "idle")}


def cached(path: Path) -> int:
    """How many of the file's pages are in memory."""
    told = ["fincore", "--bytes", "--noheadings", "--output", "PAGES", path]
    return int(subprocess.run(told, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("unchanged", [False, True])
def test_memory_is_left_to_the_application(bench, unchanged):
    """Its database stays cached as it was, and nothing of the backup's own is left in memory."""
    request = bench.request(older=older(bench, bench.work()) if unchanged else None)
    if b"tmpfs" in subprocess.run(["stat", "-f", "-c", "%T", bench.staging], check=True, capture_output=True).stdout:
        pytest.skip("here all files are in memory")
    bench.source.read_bytes()
    before = cached(bench.source)
    bench.work(older=request.older)
    assert cached(bench.source) >= before * 0.9  # whatever else goes on here
    assert cached(bench.staging / "artifact") == 0
    if request.older is not None:
        assert cached(Path(request.older.path)) == 0


# Refusals cross the process border with their name and their message


def test_missing(bench):
    bench.source.unlink()
    assert str(bench.source) in bench.refusal(SourceMissingError)


def test_locked(bench):
    with Session(bench.source, "BEGIN EXCLUSIVE"), pytest.raises(SourceBusyError, match=f"^{bench.source}: locked by"):
        bench.work(limits=Limits(0.2, 30.0, 2))


def test_hot_journal(bench):
    with Session(bench.source, "PRAGMA cache_size = 5", "BEGIN", "UPDATE runs SET summary = 'lost'") as application:
        application.kill()
    assert str(bench.source) in bench.refusal(HotJournalError, limits=Limits(0.2, 30.0, 2))


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_damage_in_the_middle_is_blamed_on_the_source(bench, journal_mode):
    with closing(sqlite3.connect(bench.source)) as db:
        db.execute(f"PRAGMA journal_mode = {journal_mode}")
        pages = [row[0] for row in db.execute("SELECT pageno FROM dbstat WHERE name = 'runs' AND pagetype = 'leaf'")]
    with bench.source.open("r+b") as file:
        file.seek((pages[len(pages) // 2] - 1) * 4096)
        file.write(b"\xa5" * 4096)
    message = bench.refusal(SourceCorruptError)
    assert message.startswith(f"{bench.source}: damaged: ")
    assert "newest verified artifact" in message


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_truncated(bench, journal_mode):
    with closing(sqlite3.connect(bench.source)) as db:
        db.execute(f"PRAGMA journal_mode = {journal_mode}")
    os.truncate(bench.source, bench.source.stat().st_size // 2)
    message = bench.refusal(SourceTruncatedError)
    assert message.startswith(f"{bench.source}: truncated: ")


def test_an_operating_system_error_names_its_file(bench):
    (bench.staging / "artifact").touch()
    assert f"{bench.staging}/artifact: File exists" in bench.refusal(BackupError)


def test_what_was_written_is_read_again(bench):
    """An artifact that is sound and holds something else, and one that is cut off."""
    request = bench.request()
    copy, artifact = Path(request.copy), Path(request.artifact)
    shutil.copyfile(bench.source, copy)
    settings = {"compression": request.compression, "preset": request.preset, "workers": 2}
    copied = pack.compress(copy, artifact, **settings, progress=lambda _done, _total: None)
    artifact.unlink()
    copy.write_bytes(copy.read_bytes()[:-1] + b"?")
    pack.compress(copy, artifact, **settings, progress=lambda _done, _total: None)
    with pytest.raises(ProofError, match="does not decompress to what was copied"):
        worker._prove(artifact, request, copied)
    artifact.write_bytes(artifact.read_bytes()[:-5])
    with pytest.raises(ProofError, match=f"{artifact}: .*cut off"):
        worker._prove(artifact, request, copied)


@pytest.mark.parametrize("name", ["SourceBusyError", "NoSuchError"])
def test_a_failure_becomes_an_error_again(name):
    error = worker.Failed(name, "why").error()
    assert isinstance(error, SourceError if name == "SourceBusyError" else BackupError)
    assert str(error) == "why"


# Its end


def test_cancel_ends_it(bench):
    seen = []
    with Session(bench.source, "BEGIN EXCLUSIVE") as application:
        with pytest.raises(StoppedError):
            bench.work(OnceWaiting(seen.append), OnceWaiting(lambda _pid: bench.cancel.set()))
        assert workers() == []
        assert not Path(f"/proc/{seen[0]}").exists()
        application.run("COMMIT")


def test_killed_from_outside(bench):
    with (
        Session(bench.source, "BEGIN EXCLUSIVE"),
        pytest.raises(BackupError, match=r"ended without a result: killed; out of memory\? see: journalctl -k"),
    ):
        bench.work(OnceWaiting(lambda pid: os.kill(pid, signal.SIGKILL)))


def test_signals_for_the_daemon_do_nothing_to_it(bench):
    """A plain `systemctl kill -s USR1` reaches every process of the control group."""
    application = Session(bench.source, "BEGIN EXCLUSIVE")

    def signalled(pid: int) -> None:
        assert os.getpgid(pid) == pid != os.getpgid(0)
        for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGINT):
            os.killpg(pid, number)
        application.run("COMMIT")

    with application:
        assert bench.work(OnceWaiting(signalled)).artifact_bytes > 0


_PARENT = """
import json, sys, threading
from pathlib import Path
import msgspec
from scpln_backup.events import Announcer
from scpln_backup.operations.workbench import work
from scpln_backup.stages.worker import Request
from scpln_backup.support.locks import Lock
request = msgspec.json.decode(sys.argv[1], type=Request)
with Lock(Path(sys.argv[2]), "the parent") as lock:
    work(request, lock_fd=lock.fd, cancel=threading.Event(), announce=Announcer(lambda event: print(event, flush=True)))
"""


def test_it_dies_with_its_parent_and_the_lock_with_it(bench):
    with Session(bench.source, "BEGIN EXCLUSIVE"):
        command = [sys.executable, "-c", _PARENT, msgspec.json.encode(bench.request()), str(bench.lock.path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
            assert b"snapshot" in parent.stdout.readline()
            (pid,) = workers(parent.pid)
            with pytest.raises(LockHeldError, match=f"the parent .process {parent.pid}"):
                bench.lock.acquire()
            parent.kill()
        wait_until_gone(pid)
        with bench.lock:  # free: nobody has it any more
            pass


def test_it_holds_the_lock_with_its_parent(bench):
    """Should the parent alone let go, nobody may start a second run beside this one."""
    other = Lock(bench.lock.path, "another")

    def let_go(_pid: int) -> None:
        bench.lock.release()
        with pytest.raises(LockHeldError):
            other.acquire()
        bench.cancel.set()

    with Session(bench.source, "BEGIN EXCLUSIVE"), pytest.raises(StoppedError):
        bench.work(OnceWaiting(let_go))
    with other:
        pass


def test_messages_are_json_lines(bench):
    done = bench.work()
    line = msgspec.json.encode(done)
    assert json.loads(line)["type"] == "done"
    assert msgspec.json.decode(line, type=worker.Message) == done
