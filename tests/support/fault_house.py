"""A database, a backup root and a state folder with a past, and what must be true of them after any fault."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import shutil
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from scpln_backup.app import App
from scpln_backup.config.load import load
from scpln_backup.errors import BackupError
from scpln_backup.model import Artifact, Manifest, Outcome, State, Trigger
from support.faults import PATIENCE, Call, Finished, Process, Program

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

_LOOK_SECONDS = 0.005
_CATALOG = "state/catalog.db"
_JOURNAL = f"{_CATALOG}-journal"
_TRIES = 5  # for the calls whose number hangs on timing
_EXPIRED_DAYS = 40
_LEGACY_DAYS = 5
_CONFIG = """\
[database]
path = "{folder}/data/scpln.db"
env_file = ""
[backup]
root = "{root}"
workers = 1
source_wait_seconds = 20
[retention]
keep_verified = 1
[state]
directory = "{state}"
[web]
listen = "127.0.0.1:0"
[audit]
log = "{folder}/audit.log"
"""


@dataclass(frozen=True)
class Past:
    """What a house begins with. `expired` is the artifact that the next sweep deletes; all hashes are sha256."""

    files: dict[str, str] = field(default_factory=dict)
    states: dict[str, State] = field(default_factory=dict)
    expired: str | None = None


class FaultHouse:
    """The folder of one case. Its root and state may lie elsewhere (on a full disk)."""

    def __init__(self, folder: Path, past: Past, *, root: Path | None = None, state: Path | None = None) -> None:
        self.folder = folder
        self.past = past
        self.database = folder / "data" / "scpln.db"
        self.root = root or folder / "root"
        self.state = state or folder / "state"
        config = folder / "config.toml"
        config.write_text(_CONFIG.format(folder=folder, root=self.root, state=self.state))
        self.program = Program(folder, past.files)
        self.app = App.reader(load(config, {}))
        self._source = _tree(self.database.parent)

    def artifacts(self) -> dict[str, Artifact]:
        return {artifact.name: artifact for artifact in self.app.store.scan()}

    def listed(self) -> dict[str, str]:
        """Name and state, as the command says."""
        finished = self.program.run("list", "--json")
        assert finished.code == 0, finished.stderr
        return {artifact["name"]: artifact["state"] for artifact in json.loads(finished.stdout)}

    def wait_until_free(self) -> None:
        """Until nobody has the run lock: its holders are gone, a worker that outlived the command too."""
        deadline = time.monotonic() + PATIENCE
        while not _is_free(self.state / "run.lock"):
            assert time.monotonic() < deadline, "the run lock is held still"
            time.sleep(_LOOK_SECONDS)

    def expect_whole(self, *, sweeping: bool = False) -> dict[str, Artifact]:
        """The promises that hold at any moment; returns the artifacts that are new since the past.

        The expired artifact goes by a sweep only: one that was asked for (`sweeping`), or the one after a new artifact.
        """
        assert _tree(self.database.parent) == self._source, "the live database or its folder was changed"
        artifacts = self.artifacts()
        new = {name: artifact for name, artifact in artifacts.items() if name not in self.past.files}
        for name, digest in self.past.files.items():
            if name not in artifacts:
                assert name == self.past.expired, f"{name}: lost"
                assert new or sweeping, f"{name}: swept before there was a new one"
                continue
            assert _sha256(Path(artifacts[name].path)) == digest, f"{name}: changed"
            assert artifacts[name].problem is None, artifacts[name].problem
            legacy = self.past.states[name] is State.UNVERIFIED  # which a verification may have proven meanwhile
            assert artifacts[name].state in {State.VERIFIED, *([State.UNVERIFIED] if legacy else [])}, name
        for artifact in new.values():
            assert artifact.state is State.VERIFIED, artifact
            assert restored(artifact) == dump(self.database), f"{artifact.name}: restores to something else"
        return new

    def expect_clean(self, *names: str) -> None:
        """Nothing lies about but the artifacts of the past and of `names`, each with its sidecars."""
        kept = {name for name in self.past.files if name != self.past.expired} | set(names)
        artifacts = self.artifacts()
        assert set(artifacts) == kept, f"{set(artifacts)}, not {kept}"
        wanted = {self.root / ".staging", *(self.state / name for name in ("catalog.db", "run.lock", "daemon.lock"))}
        audited = {self.state / name for name in ("audit-chain.json", "audit-chain.lock", "deliver-audit.lock")}
        allowed = {self.root / ".manifests.lock", *audited}
        for name, artifact in artifacts.items():
            path = Path(artifact.path)
            wanted |= {path, path.parent}
            sidecars = {path.with_name(f"{name}{ending}") for ending in (".json", ".sha256")}
            if self.past.states.get(name) is State.UNVERIFIED:
                allowed |= sidecars
            else:
                wanted |= sidecars
            if artifact.pinned:
                wanted.add(path.with_name(f"{name}.pin"))
        found = {*self.root.rglob("*"), *self.state.rglob("*")}
        assert found - allowed == wanted, f"left behind, or missing: {(found - allowed) ^ wanted}"
        with closing(sqlite3.connect(self.state / "catalog.db")) as catalog:
            assert catalog.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            rows = catalog.execute("SELECT name FROM artifacts WHERE deleted_at IS NULL").fetchall()
        assert {name for (name,) in rows} == kept, "the catalog lists something else than there is"

    def expect_next_run_clean(self, *names: str) -> None:
        """The next run is a success, and after it there are its artifact, those of `names` and the past, no more."""
        app = App.build(load(self.folder / "config.toml", {}))
        with app.foreground_lock:
            record = app.backup(Trigger.CLI, threading.Event())
        assert record.outcome is Outcome.SUCCESS, record.error
        assert record.artifact in self.expect_whole()
        self.expect_clean(*names, record.artifact)


class Halted:
    """A run in its middle: its worker has made the first pass and waits, because the database is locked."""

    def __init__(self, house: FaultHouse) -> None:
        self.house = house
        self._lock = sqlite3.connect(house.database, isolation_level=None)

    def __enter__(self) -> Self:
        self._lock.execute("BEGIN EXCLUSIVE")
        self.process = self.house.program.start("backup", "--json")
        copy = self.house.app.store.staging / "copy.db"
        size = self.house.database.stat().st_size
        deadline = time.monotonic() + PATIENCE
        while not copy.exists() or copy.stat().st_size < size:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, "the run never came to its middle"
            time.sleep(_LOOK_SECONDS)
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        (self.worker,) = map(int, children.read_text().split())
        return self

    def go_on(self) -> None:
        self._lock.close()

    def end(self) -> Finished:
        out, err = self.process.communicate(timeout=PATIENCE)
        return Finished(self.process.returncode, out, err)

    def __exit__(self, *_: object) -> None:
        self.go_on()
        self.process.kill()  # unless it has ended
        self.process.communicate()


def expect_clear(finished: Finished) -> dict[str, Any]:
    """A failure is one JSON document, and one line for people that says what and where; returns the document."""
    assert "Traceback" not in finished.stderr, finished.stderr
    lines = finished.stderr.splitlines()
    said = [line for line in lines if not line.startswith("WARNING: ")]
    assert len(said) == 1, lines
    document: dict[str, Any] = json.loads(finished.stdout)
    assert document["error"], document
    assert "\n" not in document["error"]
    assert document["error"] in said[0], lines
    return document


def restored(artifact: Artifact) -> list[str]:
    """What gunzip and SQLite make of an artifact, without anything of ours."""
    raw = gzip.decompress(Path(artifact.path).read_bytes())
    assert artifact.manifest is not None
    assert artifact.manifest.fingerprint is not None
    assert hashlib.sha256(raw).hexdigest() == artifact.manifest.fingerprint.sha256
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(raw[:18] + b"\x01\x01" + raw[20:])  # a database in memory has no WAL to read
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return list(connection.iterdump())


def dump(database: Path) -> list[str]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return list(connection.iterdump())


def make_database(path: Path, generation: int, *, rows: int = 3000) -> None:
    """About 1.2 MiB with the default rows: several pieces to copy, more than one block to compress."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE parts (id INTEGER PRIMARY KEY, generation INTEGER, text TEXT)")
        texts = ((number, generation, hashlib.sha512(b"%d" % number).hexdigest() * 3) for number in range(rows))
        connection.executemany("INSERT INTO parts VALUES (?, ?, ?)", texts)
        connection.commit()


def build(folder: Path) -> FaultHouse:
    """A house with a past: a verified artifact, an expired one, and one of the old procedure, without a manifest."""
    database = folder / "data" / "scpln.db"
    make_database(database, 0)
    legacy = gzip.compress(database.read_bytes())
    make_database(database, 1)
    house = FaultHouse(folder, Past())
    for _ in range(2):
        assert house.program.run("backup", "--json").code == 0
    newest, recent = house.app.store.scan()
    now = house.app.now()
    old = _aged(newest, now - timedelta(days=_EXPIRED_DAYS))
    legacy_at = now - timedelta(days=_LEGACY_DAYS)
    legacy_path = house.root / f"{legacy_at:%Y}" / f"scpln-{legacy_at:%Y%m%d_%H%M}.db.gz"
    legacy_path.parent.mkdir(exist_ok=True)
    legacy_path.write_bytes(legacy)
    os.utime(legacy_path, (legacy_at.timestamp(),) * 2)
    make_database(database, 2)
    past = house.artifacts()
    house.app.catalog.sync_artifacts(past.values(), now)
    states = {recent.name: State.VERIFIED, old.name: State.VERIFIED, legacy_path.name: State.UNVERIFIED}
    files = {name: _sha256(Path(artifact.path)) for name, artifact in past.items()}
    assert {name: artifact.state for name, artifact in past.items()} == states
    return FaultHouse(folder, Past(files, states, old.name))


def copied(house: FaultHouse, folder: Path) -> FaultHouse:
    """The same house again, with the times of its files."""
    shutil.copytree(house.folder, folder)
    return FaultHouse(folder, house.past)


def struck(house: FaultHouse, folder: Path, call: Call, fault: str, *verb: str) -> tuple[FaultHouse, Finished]:
    """A copy of the house in `folder` after the command with the fault at `call`, and how the command ended."""
    for _ in range(_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        case = copied(house, folder)
        finished = case.program.strike(call, fault, *verb)
        if finished.struck == call:
            case.wait_until_free()
            return case, finished
    raise AssertionError(f"the fault was meant for another call: {finished.struck}")


def each(calls: list[Call], check: Callable[[Call], None]) -> None:
    """Check every call, two at a time; all that fail are told together."""

    def complaint(call: Call) -> str | None:
        try:
            check(call)
        except (AssertionError, BackupError) as error:
            return f"{call}: {error}"
        return None

    assert calls
    with ThreadPoolExecutor(2) as pool:
        complaints = [found for found in pool.map(complaint, calls) if found]
    assert not complaints, "\n".join([f"{len(complaints)} of {len(calls)} points:", *complaints])


def distinct(calls: list[Call]) -> list[Call]:
    """Of neighbours that do the same to the same file the first and the last."""

    def kind(index: int) -> tuple[Process, str, str] | None:
        call = calls[index] if 0 <= index < len(calls) else None
        return (call.process, call.name, call.where) if call else None

    return [call for index, call in enumerate(calls) if not kind(index - 1) == kind(index) == kind(index + 1)]


def without_repeated_transactions(calls: list[Call]) -> list[Call]:
    """Of the catalog's transactions the first and the last whole, and of each between how it begins and commits.

    They are all SQLite's one way of writing; what differs is what the run has done by then.
    """
    opened = [index for index, call in enumerate(calls) if (call.name, call.where) == ("openat", _JOURNAL)]
    whole = [index for index, call in enumerate(calls) if not call.where.startswith("state")]
    ends = [*opened[1:], len(calls)]
    for begin, end in list(zip(opened, ends, strict=True))[1:-1]:
        inside = [index for index in range(begin, end) if calls[index].where.startswith("state")]
        whole += [inside[0], *(i for i in inside if calls[i].name == "unlink" or calls[i].where == _CATALOG)]
    for begin, end in ((0, ends[0]), (opened[-1], ends[-1])):
        whole += [index for index in range(begin, end) if calls[index].where.startswith("state")]
    return [calls[index] for index in sorted(set(whole))]


def shared_out(calls: list[Call], fault: str) -> list[Call]:
    """Every call for a kill; an error takes every other one, and the other error the rest."""
    turns = {"error=ENOSPC": slice(0, None, 2), "error=EIO": slice(1, None, 2)}
    return calls[turns.get(fault, slice(None))]


def _aged(artifact: Artifact, at: datetime) -> Path:
    """Make an artifact one that was taken at `at`."""
    path = Path(artifact.path)
    target = path.parent.parent / f"{at:%Y}" / f"scpln-{at:%Y%m%d_%H%M}.db.gz"
    target.parent.mkdir(exist_ok=True)
    assert artifact.manifest is not None
    manifest: Manifest = msgspec.structs.replace(artifact.manifest, name=target.name, taken_at=at)
    path.rename(target)
    for ending in (".json", ".sha256"):
        Path(f"{path}{ending}").unlink()
    Path(f"{target}.json").write_bytes(msgspec.json.encode(manifest))
    Path(f"{target}.sha256").write_text(f"{manifest.sha256}  {target.name}\n")
    os.utime(target, (at.timestamp(),) * 2)
    return target


def _tree(folder: Path) -> dict[str, str]:
    """Every file under `folder` with what is in it. The -shm is SQLite's own business: readers note themselves there."""
    return {path.name: _sha256(path) for path in folder.iterdir() if not path.name.endswith("-shm")}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_free(lock: Path) -> bool:
    if not lock.exists():
        return True
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
