"""One holder at a time, known by name, and none after it is gone."""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from scpln_backup.errors import BackupError, LockHeldError
from scpln_backup.support.locks import Lock, holder

HOLD = (
    "import sys; from pathlib import Path; from scpln_backup.support.locks import Lock\n"
    "with Lock(Path(sys.argv[1]), 'the backup daemon'):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.read()\n"
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "daemon.lock"


@pytest.fixture
def other(path):
    """Another process that holds the lock until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "held\n"
        yield child
        child.kill()


def test_the_file_is_private_and_says_who(path):
    with Lock(path, "the backup daemon"):
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        lines = path.read_text().splitlines()
        assert len(lines) == 1
        content = json.loads(lines[0])
        assert (content["pid"], content["what"]) == (os.getpid(), "the backup daemon")
        assert content["since"]
    assert path.exists()


def test_a_second_holder_is_told_about_the_first(path, other):
    with pytest.raises(LockHeldError) as caught:
        Lock(path, "a backup", hint="wait for it, or stop the daemon").acquire()
    pattern = (
        rf"the backup daemon \(process {other.pid}, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\) "
        rf"holds {re.escape(str(path))}; wait for it, or stop the daemon"
    )
    assert re.fullmatch(pattern, str(caught.value))
    assert caught.value.exit_code == 75


def test_two_locks_of_one_process_exclude_each_other(path):
    with Lock(path, "a backup"), pytest.raises(LockHeldError, match=f"process {os.getpid()}"):
        Lock(path, "a sweep").acquire()
    with Lock(path, "a sweep"):
        pass


def test_a_killed_holder_holds_nothing(path, other):
    assert holder(path).pid == other.pid
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert str(other.pid) in path.read_text()
    assert holder(path) is None
    with Lock(path, "a backup"):
        assert holder(path).what == "a backup"


def test_a_child_that_inherits_keeps_the_lock(path):
    lock = Lock(path, "a backup")
    lock.acquire()
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[lock.fd])
    lock.release()
    with pytest.raises(LockHeldError):
        Lock(path, "another").acquire()
    assert holder(path) is not None
    child.communicate()
    with Lock(path, "another"):
        pass


def test_nobody_holds_what_was_never_taken(path):
    assert holder(path) is None


def test_looking_never_keeps_anybody_out(path):
    """Were holder() to try the lock, one of many acquisitions would meet it and be refused."""
    script = (
        "import sys; from pathlib import Path; from scpln_backup.support.locks import holder\n"
        "print('looking', flush=True)\n"
        "while True: holder(Path(sys.argv[1]))\n"
    )
    with Lock(path, "first"):
        pass
    with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        try:
            for _ in range(500):
                with Lock(path, "a backup"):
                    pass
        finally:
            child.kill()


def test_a_reader_without_write_access_sees_the_holder(path, tmp_path):
    with Lock(path, "the backup daemon"):
        path.chmod(0o444)
        for folder in (path.parent, tmp_path, *tmp_path.parents[:2]):
            folder.chmod(folder.stat().st_mode | 0o055)
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            try:
                answer = str(holder(path))
            except BaseException as error:
                answer = repr(error)
            os.write(write_end, answer.encode())
            os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end) as answer:
            assert f"the backup daemon (process {os.getpid()}, since" in answer.read()
        os.waitpid(child, 0)


def test_a_holder_that_could_not_say_who_it_is(path):
    """Somebody's flock(1), or a holder that found the disk full."""
    path.parent.mkdir()
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LockHeldError, match="another process holds"):
            Lock(path, "a backup").acquire()


def test_a_full_disk_does_not_keep_the_daemon_from_its_lock(tmp_path, caplog):
    full = tmp_path / "full"
    full.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "none", full], check=False).returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        lock = Lock(full / "daemon.lock", "the backup daemon")
        with lock:
            pass
        os.truncate(lock.path, 0)
        free = shutil.disk_usage(full).free
        (full / "filler").write_bytes(bytes(free))
        with lock:
            assert str(holder(lock.path)) == "another process"
            with pytest.raises(LockHeldError):
                Lock(lock.path, "a backup").acquire()
        assert "cannot say by whom" in caplog.text
    finally:
        subprocess.run(["umount", full], check=True)


def test_a_path_that_cannot_be_a_lock(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(BackupError, match=r"cannot lock .*folder"):
        Lock(tmp_path / "folder", "a backup").acquire()


def test_the_descriptor_exists_only_while_it_is_held(path):
    lock = Lock(path, "a backup")
    with pytest.raises(RuntimeError):
        _ = lock.fd
    with lock:
        assert not os.get_inheritable(lock.fd)
        with pytest.raises(RuntimeError):
            lock.acquire()
    lock.release()
