"""The promise itself: while the application writes, every copy is of one instant, and the application feels little.

The writer's invariant joins pages all over the file, so a copy that mixes two instants breaks it or integrity_check.
(Leave out the locked pass and most copies do.)
"""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from scpln_backup.model import Compression, Preset
from scpln_backup.stages import snapshot, source, worker
from support import databases
from support.writer import BUSY_TIMEOUT_SECONDS, Writer, check_invariant, prepare

LIMITS = snapshot.Limits(wait_seconds=60.0, block_seconds=4.0, workers=2)
MEMORY_LIMIT_MB = 150
MODES = pytest.mark.parametrize("journal_mode", ["delete", "wal"])


def nothing(_done: int, _total: int) -> None:
    pass


def written_database(folder: Path, mib: int, journal_mode: str) -> Path:
    path = databases.grow(folder / "scpln.db", mib, journal_mode)
    prepare(path)
    return path


def commits_in(copy: Path) -> int:
    """How many transactions a sound copy contains."""
    with closing(sqlite3.connect(source.uri(copy, "immutable=1"), uri=True)) as db:
        assert check_invariant(db) == []
        return int(db.execute("SELECT commits FROM ledger").fetchone()[0])


@MODES
@pytest.mark.parametrize("rough", [False, True], ids=["smooth", "rough"])
def test_every_copy_is_of_one_instant(tmp_path, journal_mode, rough):
    path = written_database(tmp_path, 64, journal_mode)
    copy = tmp_path / "copy.db"
    seen = []
    with Writer(path, rough=rough) as writer:
        for _ in range(10):
            facts = snapshot.take(path, copy, LIMITS, nothing)
            assert facts.writer_blocked_seconds < LIMITS.block_seconds
            seen.append(commits_in(copy))
            copy.unlink()
        report = writer.stop()
    assert report.errors == []
    assert seen == sorted(seen)
    assert seen[0] < seen[-1] <= len(report.seconds)  # it did write all the while
    with closing(sqlite3.connect(path)) as db:
        assert check_invariant(db) == []
        assert db.execute("PRAGMA journal_mode").fetchone() == (journal_mode,)


_RUN = """
import json, resource, sys, threading
from pathlib import Path
import msgspec
from scpln_backup.events import Announcer
from scpln_backup.operations.workbench import work
from scpln_backup.stages.worker import Request
from scpln_backup.support.locks import Lock
request = msgspec.json.decode(sys.argv[1], type=Request)
with Lock(Path(sys.argv[2]), "a test") as lock:
    done = work(request, lock_fd=lock.fd, cancel=threading.Event(), announce=Announcer())
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
print(json.dumps({"done": json.loads(msgspec.json.encode(done)), "peak_mb": peak}))
"""


@MODES
@pytest.mark.large
@pytest.mark.parametrize("mib", [1024, 4096])
def test_a_large_database(tmp_path, capsys, journal_mode, mib):
    """A whole run, beside a writer, in bounded memory; `pytest -m large -s` shows the figures."""
    path = written_database(tmp_path, mib, journal_mode)
    copy, artifact = tmp_path / "copy.db", tmp_path / "artifact.db.gz"
    request = worker.Request(
        source=str(path),
        copy=str(copy),
        artifact=str(artifact),
        compression=Compression.GZIP,
        preset=Preset.BALANCED,
        limits=LIMITS,
    )
    with Writer(path) as writer:
        command = [sys.executable, "-c", _RUN, msgspec.json.encode(request), str(tmp_path / "run.lock")]
        answer = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        report = writer.stop()
    with copy.open("wb") as restored:
        subprocess.run(["gunzip", "-c", str(artifact)], stdout=restored, check=True)
    assert 0 < commits_in(copy) <= len(report.seconds)
    with capsys.disabled():
        print(
            f"\n{mib} MiB, {journal_mode}: {json.dumps(answer['done']['stage_seconds'])}, peak {answer['peak_mb']:.0f} MB, "
            f"writer held {answer['done']['snapshot']['writer_blocked_seconds']:.3f} s; its {len(report.seconds)} "
            f"transactions took p50 {report.percentile(0.5) * 1000:.1f} ms, p99 {report.percentile(0.99) * 1000:.1f} ms, "
            f"at most {max(report.seconds) * 1000:.0f} ms; {len(report.errors)} errors"
        )
    assert report.errors == []
    assert max(report.seconds) < BUSY_TIMEOUT_SECONDS
    assert answer["peak_mb"] < MEMORY_LIMIT_MB
