"""The audit log's file: the chain, its rotations, and that no edit of it goes unnoticed or unlocated."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from scpln_backup.errors import AuditError
from scpln_backup.records import auditfiles
from scpln_backup.records.auditchain import Chain
from scpln_backup.records.auditlog import CUT, MAX_LINE, NOTHING_BEFORE, Line, Record, compose, parse, sealing
from scpln_backup.records.auditverify import Finding, Verdict, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TOKYO = ZoneInfo("Asia/Tokyo")
START = datetime(2026, 8, 1, 2, 30, tzinfo=TOKYO)
LOGROTATE = Path(__file__).parents[1] / "packaging" / "logrotate" / "scpln-backup"
OLD_TEXT = b"total 117M\n-rw-r----- 1 scpln scpln 117M Aug  1 02:30 scpln-20260801_0230.db.gz\n"


class Trail:
    """A log with its state folder, and a hand that appends to it."""

    def __init__(self, folder: Path, *, environment: str = "test", log: Path | None = None) -> None:
        self.log = log or folder / "log" / "backup.log"
        self.state = folder / f"state-{environment}"
        self.log.parent.mkdir(exist_ok=True)
        self.state.mkdir(exist_ok=True)
        self.chain = Chain(self.log, self.state, database="scpln", environment=environment, host="db1")
        self._days = 0

    @property
    def note(self) -> Path:
        return self.state / "audit-chain.json"

    def record(self, event: str = "run_finished", **facts: Any) -> Record:
        self._days += 1
        at = START + timedelta(days=self._days)
        return Record(at=at, actor="daemon", event=event, facts=facts, catalog="c1", entry=self._days)

    def append(self, count: int = 1, **facts: Any) -> None:
        records = [self.record(**({"outcome": "success", "seconds": 1.5} | facts)) for _ in range(count)]
        with self.chain.appending() as appender:
            assert appender.append(records) == count

    def rotate(self, name: str) -> Path:
        rotated = self.log.with_name(name)
        self.log.rename(rotated)
        return rotated

    def verify(self) -> Verdict:
        return verify(self.log, self.state)

    def lines(self, log: Path | None = None) -> list[Line]:
        return [line for raw in (log or self.log).read_bytes().splitlines() if (line := parse(raw)) is not None]


@pytest.fixture
def trail(tmp_path: Path) -> Trail:
    return Trail(tmp_path)


def whats(findings: Sequence[Finding]) -> str:
    return "\n".join(f"{found.file}:{found.line} {found.seq} {found.what}" for found in findings)


def forged(raw: bytes, **changes: Any) -> bytes:
    """A line with other members and a right hash, as somebody makes it who has read how."""
    members = json.loads(raw) | changes
    members.pop("hash")
    body = json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode()
    return body[:-1] + sealing(hashlib.sha256(body).hexdigest()).rstrip(b"\n")


class TestLines:
    def test_the_chain_can_be_checked_with_plain_tools(self, trail: Trail) -> None:
        trail.append(3, error='差し込み "quoted" \\ \x7f \t end', seconds=12.345)
        script = r"""
            sed -n 2p "$1" | sed -E 's/,"hash":"[0-9a-f]{64}"\}$/}/' | tr -d '\n' | sha256sum | cut -d' ' -f1
            sed -n 1p "$1" | sed -E 's/.*"hash":"([0-9a-f]{64})"\}$/\1/'
        """
        done = subprocess.run(["sh", "-c", script, "sh", trail.log], capture_output=True, text=True, check=True)
        second = json.loads(trail.log.read_bytes().splitlines()[1])
        assert done.stdout.split() == [second["hash"], second["prev"]]

    def test_members(self, trail: Trail) -> None:
        trail.append(2, artifact="scpln-20260802_0230.db.gz", error=None)
        first, second = (json.loads(raw) for raw in trail.log.read_bytes().splitlines())
        assert list(first) == [
            *("seq", "at", "event", "actor", "database", "environment", "host"),
            *("outcome", "seconds", "artifact"),
            *("chain", "catalog", "entry", "file", "prev", "hash"),
        ]
        assert (first["seq"], first["prev"], first["file"]) == (1, NOTHING_BEFORE, 1)
        assert (second["seq"], second["prev"], second["at"]) == (2, first["hash"], "2026-08-03T02:30:00+09:00")

    def test_no_line_is_longer_than_the_bound(self, trail: Trail) -> None:
        huge = {f"text{number}": "\x00あ" * 5000 for number in range(6)}
        trail.append(1, **huge)
        raw = trail.log.read_bytes()
        assert len(raw) <= MAX_LINE
        assert json.loads(raw)["text5"].endswith(CUT)
        assert trail.verify().ok

    def test_a_name_that_is_no_utf8(self, trail: Trail) -> None:
        trail.append(1, artifact=os.fsdecode(b"scpln-\xff.db.gz"))
        assert json.loads(trail.log.read_text(encoding="utf-8"))["artifact"] == r"scpln-\udcff.db.gz"

    @given(facts=st.dictionaries(st.text("abcxyz_", min_size=3), st.text() | st.integers() | st.booleans(), max_size=5))
    @settings(max_examples=100)
    def test_what_is_written_is_read(self, facts: dict[str, Any]) -> None:
        record = Record(at=START, actor="daemon", event="run_finished", facts=facts)
        place = {"database": "scpln", "environment": "test", "host": "db1"}
        links = {"seq": 1, "chain": "c", "catalog": "", "entry": 0, "prev": NOTHING_BEFORE}
        raw, digest = compose(record, place, links)
        line = parse(raw.removesuffix(b"\n"))
        assert line is not None
        assert line.hash == digest
        assert line.facts == {name: value for name, value in facts.items() if not isinstance(value, str)} | {
            name: value.encode(errors="backslashreplace").decode()
            for name, value in facts.items()
            if isinstance(value, str)
        }
        assert (line.at, line.actor, line.event) == (record.at, "daemon", "run_finished")


class TestFile:
    def test_mode_whatever_the_umask(self, trail: Trail) -> None:
        before = os.umask(0o077)
        try:
            trail.append()
        finally:
            os.umask(before)
        assert trail.log.stat().st_mode & 0o777 == 0o640

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
    def test_what_root_makes_belongs_to_the_folders_owner(self, trail: Trail) -> None:
        for folder in (trail.log.parent, trail.state):
            os.chown(folder, 4242, 4242)
        trail.append()
        made = [trail.log, *trail.state.iterdir()]
        assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(4242, 4242)}

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
    def test_root_and_the_daemon_in_turns(self) -> None:
        """Neither locks the other out, whoever makes the files, and whatever root was killed over."""
        with tempfile.TemporaryDirectory() as folder:  # pytest's own are for root only
            trail = Trail(Path(folder))
            for path in (Path(folder), trail.log.parent, trail.state):
                os.chown(path, 4242, 4242)
            for turn in range(6):
                if turn == 3:
                    os.chown(trail.note, 0, 0)
                os.seteuid(0 if turn % 2 == 0 else 4242)
                try:
                    trail.append()
                    assert trail.verify().last_seq == turn + 1
                finally:
                    os.seteuid(0)

    def test_a_symbolic_link_is_not_followed(self, trail: Trail, tmp_path: Path) -> None:
        precious = tmp_path / "precious"
        precious.write_text("precious")
        trail.log.symlink_to(precious)
        with pytest.raises(AuditError, match=r"backup\.log.*symbolic link"):
            trail.append()
        assert precious.read_text() == "precious"

    def test_nor_a_second_name(self, trail: Trail, tmp_path: Path) -> None:
        precious = tmp_path / "precious"
        precious.write_text("precious")
        trail.log.hardlink_to(precious)
        with pytest.raises(AuditError, match=r"backup\.log"):
            trail.append()
        assert precious.read_text() == "precious"

    def test_a_missing_folder_says_how_to_make_it(self, trail: Trail) -> None:
        trail.log.parent.rmdir()
        with pytest.raises(AuditError, match=r"install -d -o scpln -g scpln -m 0750 .*/log$"):
            trail.append()

    def test_two_processes_at_once(self, trail: Trail) -> None:
        """As the daemon and a root command line do."""
        script = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_auditlog import Trail
trail = Trail(Path({str(trail.log.parents[1])!r}))
for _ in range(30):
    trail.append()
"""
        writers = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(3)]
        assert [writer.wait(60) for writer in writers] == [0, 0, 0]
        verdict = trail.verify()
        assert (verdict.ok, verdict.checked, verdict.last_seq) == (True, 90, 90), whats(verdict.problems)


class TestForeignText:
    """The old procedure's cron wrote plain text into the same file."""

    def test_it_stays_and_is_reported(self, trail: Trail) -> None:
        trail.log.write_bytes(OLD_TEXT)
        trail.append(2)
        with trail.log.open("ab") as file:
            file.write(b"error: without a newline")
        trail.append()
        with trail.log.open("ab") as file:
            file.write(b"too late to be vouched for\n")
        content = trail.log.read_bytes()
        assert content.startswith(OLD_TEXT + b'{"seq":1,')
        assert b'}\nerror: without a newline\n{"seq":3,' in content
        assert trail.lines()[0].foreign_sha256 == hashlib.sha256(OLD_TEXT).hexdigest()
        verdict = trail.verify()
        assert verdict.ok
        assert [(found.line, found.what) for found in verdict.notes] == [
            (1, f"2 lines of other text, {len(OLD_TEXT)} bytes; unchanged since"),
            (5, "1 line of other text, 25 bytes; unchanged since"),
            (7, "1 line of other text, 27 bytes; no later line vouches for it"),
        ]

    def test_changed_afterwards(self, trail: Trail) -> None:
        trail.log.write_bytes(OLD_TEXT)
        trail.append(2)
        trail.log.write_bytes(trail.log.read_bytes().replace(b"117M", b"118M", 1))
        (problem,) = trail.verify().problems
        assert (problem.line, problem.seq) == (3, 1)
        assert "other text" in problem.what

    def test_json_of_somebody_else_and_endless_lines(self, trail: Trail) -> None:
        trail.log.write_bytes(b'{\n  "level": "info"\n}\n{"msg":"hi","hash":"abc"}\n' + b"x" * 300_000 + b"\n\n")
        trail.append(2)
        verdict = trail.verify()
        assert verdict.ok, whats(verdict.problems)
        assert "6 lines" in verdict.notes[0].what

    def test_text_that_comes_at_the_same_moment(self, trail: Trail) -> None:
        """Somebody without our lock writes all the time: lines stay whole, and nobody is accused."""
        done = threading.Event()

        def scribble() -> None:
            with trail.log.open("ab", buffering=0) as file:
                while not done.is_set():
                    file.write(b"cron says something\n")

        trail.append()
        scribbler = threading.Thread(target=scribble)
        scribbler.start()
        try:
            for _ in range(30):
                trail.append()
        finally:
            done.set()
            scribbler.join()
        verdict = trail.verify()
        assert (verdict.ok, verdict.checked) == (True, 31), whats(verdict.problems)

    def test_two_installations_in_one_file(self, trail: Trail, tmp_path: Path) -> None:
        other = Trail(tmp_path, environment="staging", log=trail.log)
        for _ in range(3):
            trail.append(2)
            other.append()
        for one, count in ((trail, 6), (other, 3)):
            verdict = one.verify()
            assert (verdict.ok, verdict.checked) == (True, count), whats(verdict.problems)
        assert "another installation" in whats(trail.verify().notes)
        with auditfiles.opened(trail.log) as files:
            mine = [line.seq for line in auditfiles.lines(files, trail.lines()[0].chain)]
        assert mine == [1, 2, 3, 4, 5, 6]


def pack(path: Path, how: str) -> None:
    data = path.read_bytes()
    path.unlink()
    packed = {
        "gz": gzip.compress,
        "xz": lzma.compress,
        "bz2": bz2.compress,
        "zst": zstandard.ZstdCompressor().compress,
    }[how](data)
    path.with_name(f"{path.name}.{how}").write_bytes(packed)


class TestRotation:
    @pytest.mark.parametrize("how", ["gz", "xz", "bz2", "zst"])
    def test_the_chain_goes_on_over_files(self, trail: Trail, how: str) -> None:
        for name in ("backup.log-20260901", "backup.log.2", "backup.log-20261101"):
            trail.append(3)
            pack(trail.rotate(name), how)
        trail.append()
        assert (trail.lines()[0].seq, trail.lines()[0].file) == (10, 4)
        verdict = trail.verify()
        assert (verdict.ok, verdict.checked, verdict.first_seq, verdict.last_seq) == (True, 10, 1, 10)
        with auditfiles.opened(trail.log) as files:
            assert [line.seq for line in auditfiles.lines(files)] == list(range(1, 11))

    def test_right_after_a_rotation(self, trail: Trail) -> None:
        trail.append(3)
        trail.rotate("backup.log.1")
        assert trail.verify().ok
        trail.log.touch()
        assert trail.verify().ok

    def test_the_oldest_may_go(self, trail: Trail) -> None:
        for name in ("backup.log-20260901", "backup.log-20261001"):
            trail.append(3)
            trail.rotate(name)
        trail.append()
        trail.log.with_name("backup.log-20260901").unlink()
        verdict = trail.verify()
        assert (verdict.ok, verdict.checked, verdict.first_seq) == (True, 4, 4)

    @pytest.mark.parametrize("gone", ["backup.log-20261001", "backup.log"])
    def test_no_other_may(self, trail: Trail, gone: str) -> None:
        for name in ("backup.log-20260901", "backup.log-20261001", "backup.log-20261101"):
            trail.append(3)
            trail.rotate(name)
        trail.append()
        trail.log.with_name(gone).unlink()
        (problem,) = trail.verify().problems
        if gone == "backup.log":
            assert (problem.seq, problem.file, problem.line) == (10, "backup.log-20261101", 3)
        else:
            assert problem.what == (
                "missing: seq 4 to 6: a rotated file is missing between backup.log-20260901 and backup.log-20261101"
            )

    def test_a_damaged_packed_file(self, trail: Trail) -> None:
        trail.append(30)
        path = trail.rotate("backup.log.1")
        pack(path, "gz")
        trail.append()
        packed = path.with_name("backup.log.1.gz")
        packed.write_bytes(packed.read_bytes()[:-40])
        verdict = trail.verify()
        assert not verdict.ok
        assert "backup.log.1.gz" in whats(verdict.problems)
        trail.append()  # it does not keep anything from being written
        assert trail.lines()[-1].seq == 32

    def test_a_file_that_logrotate_is_packing(self, trail: Trail) -> None:
        trail.append(3)
        path = trail.rotate("backup.log.1")
        trail.append()
        path.with_name("backup.log.1.gz").write_bytes(gzip.compress(path.read_bytes())[:30])
        assert trail.verify().ok


def logrotate(config: Path, today: str) -> None:
    """As logrotate's timer runs it, on another day."""
    command = ["faketime", f"{today} 00:00:10", "logrotate", "--state", config.with_name("status"), config]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(
    not (shutil.which("logrotate") and shutil.which("faketime")), reason="apt-get install logrotate faketime"
)
@pytest.mark.skipif(os.geteuid() != 0, reason="the shipped file makes logrotate change its user")
def test_logrotate_with_the_shipped_file() -> None:
    """A year: on the first of each month the log is put away, and last month's packed."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are for root only
        a_year(Path(folder))


def a_year(folder: Path) -> None:
    trail = Trail(folder)
    text = LOGROTATE.read_text(encoding="utf-8")
    here = {
        "/var/log/scpln/backup.log": str(trail.log),
        "/var/log/scpln": str(trail.log.parent),
        "su scpln scpln": "su nobody nogroup",
        "create 0640 scpln scpln": "create 0640 nobody nogroup",
    }
    for theirs, ours in here.items():
        assert theirs in text
        text = text.replace(theirs, ours)
    config = folder / "scpln-backup"
    config.write_text(text, encoding="utf-8")
    trail.log.parent.chmod(0o750)
    shutil.chown(trail.log.parent, "nobody", "nogroup")
    folder.chmod(0o711)
    trail.log.write_bytes(OLD_TEXT)
    shutil.chown(trail.log, "nobody", "nogroup")
    logrotate(config, "2026-01-31")
    for month in range(2, 13):
        trail.append(2)
        logrotate(config, f"2026-{month:02}-01")
        logrotate(config, f"2026-{month:02}-02")
        status = trail.log.stat()
        assert (status.st_size, status.st_mode & 0o777) == (0, 0o640)
    trail.append()
    rotated = sorted(path.name for path in trail.log.parent.iterdir())
    assert rotated == [
        "backup.log",
        *(f"backup.log-2026{month:02}01.gz" for month in range(2, 12)),
        "backup.log-20261201",
    ]
    verdict = trail.verify()
    assert (verdict.ok, verdict.checked, verdict.last_seq) == (True, 23, 23), whats(verdict.problems)
    trail.log.with_name("backup.log-20260701.gz").unlink()
    assert [found.what[:23] for found in trail.verify().problems] == ["missing: seq 11 to 12: "]


@dataclass
class Copy:
    """A log of three files that somebody works on."""

    folder: Path
    log: Path
    state: Path

    def path(self, name: str) -> Path:
        return self.log.with_name(name)

    def lines(self, name: str) -> list[bytes]:
        return self.path(name).read_bytes().splitlines(keepends=True)

    def write(self, name: str, lines: list[bytes]) -> None:
        self.path(name).write_bytes(b"".join(lines))

    def own(self, name: str) -> list[int]:
        """The indexes of the lines that are the chain's."""
        return [index for index, raw in enumerate(self.lines(name)) if parse(raw.rstrip(b"\n")) is not None]

    def verdict(self) -> Verdict:
        return verify(self.log, self.state)


FILES = ("backup.log-20260901", "backup.log-20261001", "backup.log")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Trail:
    """Three files with other text at their beginnings, between lines and, in the newest, nowhere at the end."""
    trail = Trail(tmp_path_factory.mktemp("whole"))
    trail.log.write_bytes(OLD_TEXT)
    for name in FILES:
        trail.append(3, error="日本語")
        with trail.log.open("ab") as file:
            file.write(b"from cron\n")
        trail.append(4)
        if name != FILES[-1]:
            trail.rotate(name)
    assert trail.verify().ok
    return trail


@pytest.fixture(scope="module")
def copies(whole: Trail, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Copy]:
    base = tmp_path_factory.mktemp("copies")

    def copy() -> Copy:
        folder = base / secrets.token_hex(4)
        shutil.copytree(whole.log.parent, folder / "log")
        shutil.copytree(whole.state, folder / "state")
        return Copy(folder, folder / "log" / "backup.log", folder / "state")

    return copy


def seqs_missing(verdict: Verdict) -> set[int]:
    """What the findings say is not there any more as it was written."""
    found: set[int] = set()
    for problem in verdict.problems:
        for first, last in re.findall(r"seq (\d+)(?: to (\d+))?", problem.what):
            if problem.what.startswith(("missing", "altered")):
                found |= set(range(int(first), int(last or first) + 1))
        if problem.seq is not None:
            found.add(problem.seq)
    return found


def located(verdict: Verdict, file: str, line: int) -> bool:
    return any((problem.file, problem.line) == (file, line) for problem in verdict.problems)


EDITS = settings(max_examples=60)


class TestTampering:
    """Every edit is found, and said to be where it is. The numbers of lines count from 1."""

    @given(data=st.data())
    @settings(max_examples=150)
    def test_one_changed_byte(self, copies: Callable[[], Copy], data: st.DataObject) -> None:
        copy = copies()
        name = data.draw(st.sampled_from(FILES))
        content = bytearray(copy.path(name).read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= data.draw(st.integers(1, 255))
        line = bytes(content[:at]).count(b"\n")
        own, vouching = copy.own(name), copy.lines(name)
        copy.path(name).write_bytes(content)
        verdict = copy.verdict()
        if line in own:
            assert located(verdict, name, line + 1), whats(verdict.problems)
        else:  # other text, for which the next line of ours vouches
            seq = json.loads(vouching[min(index for index in own if index > line)])["seq"]
            assert seq in {problem.seq for problem in verdict.problems}, whats(verdict.problems)

    @given(data=st.data())
    @EDITS
    def test_lines_removed(self, copies: Callable[[], Copy], data: st.DataObject) -> None:
        copy = copies()
        name = data.draw(st.sampled_from(FILES))
        lines, own = copy.lines(name), copy.own(name)
        gone = data.draw(st.sets(st.sampled_from(own), min_size=1, max_size=len(own) - 1))
        seqs = {line.seq for index in gone if (line := parse(lines[index].rstrip(b"\n"))) is not None}
        copy.write(name, [raw for index, raw in enumerate(lines) if index not in gone])
        verdict = copy.verdict()
        if name == FILES[0]:  # of those at its beginning only the last is known by its number
            seqs -= set(range(1, next(number for number, index in enumerate(own) if index not in gone)))
        assert not verdict.ok
        assert seqs <= seqs_missing(verdict), whats(verdict.problems)
        assert all(problem.file in FILES for problem in verdict.problems)

    @given(data=st.data())
    @EDITS
    def test_two_swapped(self, copies: Callable[[], Copy], data: st.DataObject) -> None:
        copy = copies()
        name = data.draw(st.sampled_from(FILES))
        lines, own = copy.lines(name), copy.own(name)
        a, b = data.draw(st.lists(st.sampled_from(own), min_size=2, max_size=2, unique=True))
        lines[a], lines[b] = lines[b], lines[a]
        copy.write(name, lines)
        verdict = copy.verdict()
        assert located(verdict, name, a + 1), whats(verdict.problems)
        assert located(verdict, name, b + 1), whats(verdict.problems)
        swapped = [problem.what for problem in verdict.problems if problem.what.startswith("swapped")]
        assert sorted(int(re.findall(r"line (\d+)", what)[0]) for what in swapped) == sorted((a + 1, b + 1))

    @given(data=st.data())
    @EDITS
    def test_swapped_between_files(self, copies: Callable[[], Copy], data: st.DataObject) -> None:
        copy = copies()
        names = data.draw(st.lists(st.sampled_from(FILES), min_size=2, max_size=2, unique=True))
        a, b = (data.draw(st.sampled_from(copy.own(name))) for name in names)
        first, second = copy.lines(names[0]), copy.lines(names[1])
        first[a], second[b] = second[b], first[a]
        copy.write(names[0], first)
        copy.write(names[1], second)
        verdict = copy.verdict()
        assert located(verdict, names[0], a + 1), whats(verdict.problems)
        assert located(verdict, names[1], b + 1), whats(verdict.problems)

    @given(data=st.data())
    @EDITS
    def test_one_moved(self, copies: Callable[[], Copy], data: st.DataObject) -> None:
        copy = copies()
        name = data.draw(st.sampled_from(FILES))
        lines, own = copy.lines(name), copy.own(name)
        old, new = data.draw(st.lists(st.sampled_from(own), min_size=2, max_size=2, unique=True))
        lines.insert(new, lines.pop(old))
        copy.write(name, lines)
        assert not copy.verdict().ok

    @given(data=st.data())
    @EDITS
    def test_one_repeated(self, copies: Callable[[], Copy], data: st.DataObject) -> None:
        copy = copies()
        source, target = data.draw(st.sampled_from(FILES)), data.draw(st.sampled_from(FILES))
        raw = data.draw(st.sampled_from([copy.lines(source)[index] for index in copy.own(source)]))
        lines = copy.lines(target)
        at = data.draw(st.integers(0, len(lines)))
        lines.insert(at, raw)
        copy.write(target, lines)
        verdict = copy.verdict()
        again = {(target, at + 1)}  # which of two that stand side by side nobody can tell
        if source == target:
            again |= {(target, index + 1) for index, line in enumerate(lines) if line == raw}
        assert any((problem.file, problem.line) in again for problem in verdict.problems), whats(verdict.problems)

    @given(data=st.data())
    @EDITS
    def test_the_tail_cut(self, copies: Callable[[], Copy], data: st.DataObject) -> None:
        copy = copies()
        name = data.draw(st.sampled_from(FILES))
        content = copy.path(name).read_bytes()
        length = data.draw(st.integers(0, len(content) - 1))
        gone = {line.seq for raw in copy.lines(name) if (line := parse(raw.rstrip(b"\n"))) is not None}
        copy.path(name).write_bytes(content[:length])
        left = {line.seq for raw in copy.lines(name) if (line := parse(raw.rstrip(b"\n"))) is not None}
        verdict = copy.verdict()
        if name == FILES[0] and b'{"seq":1,' not in content[:length]:
            assert verdict.first_seq == 8  # no line of the oldest is left: as if it had been rotated away
            assert verdict.ok or located(verdict, FILES[0], 3)
        else:
            assert not verdict.ok
            assert gone - left <= seqs_missing(verdict), whats(verdict.problems)

    @given(data=st.data())
    @EDITS
    def test_one_written_anew_with_a_right_hash(self, copies: Callable[[], Copy], data: st.DataObject) -> None:
        copy = copies()
        name = data.draw(st.sampled_from(FILES))
        lines = copy.lines(name)
        index = data.draw(st.sampled_from(copy.own(name)))
        lines[index] = forged(lines[index].rstrip(b"\n"), outcome="failed") + b"\n"
        copy.write(name, lines)
        (problem,) = copy.verdict().problems
        assert (problem.file, problem.line) == (name, index + 1)

    @given(data=st.data())
    @EDITS
    def test_all_written_anew_from_one_on(self, copies: Callable[[], Copy], data: st.DataObject) -> None:
        """The forger who does it well, and cannot reach the state folder."""
        copy = copies()
        victim = data.draw(st.integers(1, 21))
        where, before = None, None
        for name in FILES:
            lines = copy.lines(name)
            for index in copy.own(name):
                members = json.loads(lines[index])
                if members["seq"] == victim:
                    where = (name, index + 1)
                    lines[index] = forged(lines[index].rstrip(b"\n"), seconds=0.1) + b"\n"
                elif members["seq"] > victim:
                    lines[index] = forged(lines[index].rstrip(b"\n"), prev=before) + b"\n"
                before = json.loads(lines[index])["hash"]
            copy.write(name, lines)
        (problem,) = copy.verdict().problems
        assert (problem.file, problem.line) == where

    @pytest.mark.parametrize("count", [1, 3])
    def test_lines_that_a_forger_appends(self, copies: Callable[[], Copy], count: int) -> None:
        copy = copies()
        last = copy.lines("backup.log")[-1].rstrip(b"\n")
        made_up = []
        for seq in range(22, 22 + count):
            last = forged(last, seq=seq, prev=json.loads(last)["hash"], outcome="failed")
            made_up.append(last + b"\n")
        with copy.log.open("ab") as file:
            file.writelines(made_up)
        here = [("backup.log", 9 + number) for number in range(count)]
        assert [(problem.file, problem.line) for problem in copy.verdict().problems] == here
        # Nor does it become one of the chain's when the program goes on.
        goes_on = Chain(copy.log, copy.state, database="scpln", environment="test", host="db1")
        record = Record(at=START, actor="daemon", event="daemon_started", facts={}, catalog="c1", entry=99)
        with goes_on.appending() as appender:
            appender.append([record])
        verdict = copy.verdict()
        assert [(problem.file, problem.line) for problem in verdict.problems] == here
        assert (verdict.checked, verdict.last_seq) == (22, 22)

    def test_no_alarm_without_a_reason(self, copies: Callable[[], Copy]) -> None:
        assert copies().verdict().problems == ()

    def test_the_top_of_the_oldest_file(self, copies: Callable[[], Copy]) -> None:
        copy = copies()
        copy.write(FILES[0], copy.lines(FILES[0])[4:])
        (problem,) = copy.verdict().problems
        assert (problem.file, problem.line, problem.seq) == (FILES[0], 1, 2)
        assert "from the beginning of the file" in problem.what

    @given(data=st.data())
    @EDITS
    def test_after_a_cut_the_program_goes_on_and_the_gap_stays(
        self, copies: Callable[[], Copy], data: st.DataObject
    ) -> None:
        copy = copies()
        lines = copy.lines("backup.log")
        kept = data.draw(st.integers(0, len(lines) - 1))
        copy.write("backup.log", lines[:kept])
        goes_on = Chain(copy.log, copy.state, database="scpln", environment="test", host="db1")
        record = Record(at=START, actor="daemon", event="daemon_started", facts={}, catalog="c1", entry=99)
        with goes_on.appending() as appender:
            appender.append([record])
        verdict = copy.verdict()
        gone = {line.seq for raw in lines[kept:] if (line := parse(raw.rstrip(b"\n"))) is not None}
        assert gone <= seqs_missing(verdict), whats(verdict.problems)
        assert verdict.last_seq == 22


class TestTheNote:
    def test_gone(self, trail: Trail) -> None:
        trail.append(2)
        trail.note.unlink()
        (problem,) = trail.verify().problems
        assert (problem.line, problem.seq) == (2, 2)
        trail.append()
        verdict = trail.verify()
        assert (verdict.ok, verdict.last_seq) == (True, 3)
        assert "lost" in whats(verdict.notes)

    def test_gone_with_the_log_rotated_and_packed(self, trail: Trail) -> None:
        trail.append(2)
        pack(trail.rotate("backup.log.1"), "gz")
        trail.note.unlink()
        trail.append()
        verdict = trail.verify()
        assert (verdict.ok, verdict.checked, verdict.last_seq) == (True, 3, 3)

    def test_garbage(self, trail: Trail, caplog: pytest.LogCaptureFixture) -> None:
        trail.append(2)
        trail.note.write_text("{}")
        trail.append()
        assert "audit-chain.json" in caplog.text
        assert trail.verify().ok

    def test_an_older_copy_of_the_state_folder(self, trail: Trail) -> None:
        trail.append(2)
        old = trail.note.read_bytes()
        trail.append(2)
        trail.note.write_bytes(old)
        trail.append()
        verdict = trail.verify()
        assert [problem.line for problem in verdict.problems] == [3, 4]
        assert verdict.last_seq == 3

    def test_nothing_was_ever_written(self, trail: Trail) -> None:
        verdict = trail.verify()
        assert (verdict.ok, verdict.checked, verdict.first_seq) == (True, 0, None)
        assert list(trail.state.iterdir()) == []

    def test_the_whole_log_is_gone(self, trail: Trail) -> None:
        trail.append(3)
        trail.log.unlink()
        (problem,) = trail.verify().problems
        assert "seq 1 to 3" in problem.what
