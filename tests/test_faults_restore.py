"""A restore that is killed, or told "no space" or "I/O error", at every call that changes the file system.

Whatever happens at whichever point: an application that opened the database would see the old content or the new,
never a mixture, never none where there was one; `--resume` and `--abort` both end well, and leave nothing behind.
They themselves are killed and refused too.

By default the calls that repeat each other (SQLite's own in a copy or in the catalog, each writing of the journal)
are represented by some; `-m large` strikes every single one, with every kind of old database.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pytest

from scpln_backup.model import RestoreOutcome
from scpln_backup.operations.restore.journal import Phase
from support.fault_house import each
from support.faults import KILLED, Call, Finished, why_impossible
from support.restore_house import RestoreHouse, content

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(why_impossible() is not None, reason=str(why_impossible())),
]

EVERY_KIND = (
    *("plain", "with_wal", "with_hot_journal", "with_persistent_journal", "damaged_with_wal"),
    *("missing", "missing_with_stale_wal"),
)
ERRORS = ("error=ENOSPC", "error=EIO")
_TRIES = 5
_STAGING = "data/.scpln.db.restore"


@dataclass(frozen=True)
class Case:
    """A restore over an old database of this kind, or what is done about one that was broken off at `phase`."""

    kind: str
    verb: str = "--yes"
    phase: Phase | None = None

    def __str__(self) -> str:
        return f"{self.kind}{self.verb}" + (f"-{self.phase.name}" if self.phase is not None else "")


class Scene:
    """A case, and every point of it."""

    def __init__(self, folder: Path, case: Case) -> None:
        self.case = case
        self._folder = folder
        self.house = RestoreHouse.build(folder / "house", case.kind)

    @cached_property
    def points(self) -> list[Call]:
        return self._begun(self._folder / "recorded").program.record("restore", self.case.verb, "--json")

    def struck(self, folder: Path, call: Call, fault: str) -> tuple[RestoreHouse, Finished]:
        for _ in range(_TRIES):
            shutil.rmtree(folder, ignore_errors=True)
            house = self._begun(folder)
            finished = house.program.strike(call, fault, "restore", self.case.verb, "--json")
            if finished.struck == call:
                return house, finished
        raise AssertionError(f"the fault was meant for another call: {finished.struck}")

    def _begun(self, folder: Path) -> RestoreHouse:
        house = self.house.copied(folder)
        if self.case.phase is not None:
            house.break_off(self.case.phase)
        return house


def beside_the_database(call: Call) -> bool:
    """Including the set-aside folder; without the staging folder."""
    return call.where.startswith("data") and not call.where.startswith(_STAGING)


def telling(call: Call) -> bool:
    """Every call beside the database, what makes the new files, and the instants at which a record changes."""
    name = call.where.rpartition("/")[2]
    if beside_the_database(call) or call.where in ("stdout", _STAGING, "state/restore.json"):
        return True
    if call.where.startswith(_STAGING):
        return name in ("new.db", "folded.next") or (name == "folded.db" and call.name in ("write", "fsync"))
    return call.where == "state/catalog.db-journal" and call.name == "unlink"


def firsts(points: list[Call]) -> list[Call]:
    """Of neighbours that do the same to the same file the first."""
    return [
        call
        for before, call in zip([None, *points], points, strict=False)
        if before is None or (before.name, before.where) != (call.name, call.where)
    ]


def kill(scene: Scene, points: list[Call], folder: Path) -> None:
    def check(call: Call) -> None:
        index = scene.points.index(call)
        place = folder / f"{index}"
        house, finished = scene.struck(place, call, "signal=KILL")
        assert finished.code == KILLED
        expect_sound(house)
        if house.broken_off() is None:
            if scene.case.verb == "--abort":
                house.expect_as_before()
            elif is_new(house):
                house.expect_restored()
            else:
                assert house.restore().outcome is RestoreOutcome.SUCCESS
                house.expect_restored()
        elif index % 2:
            assert house.finish(abort=True).outcome is RestoreOutcome.ABORTED
            house.expect_as_before()
        elif house.finish(abort=False).outcome is RestoreOutcome.SUCCESS:
            house.expect_restored()
        else:
            assert scene.case.verb == "--abort"
            house.expect_as_before()
        shutil.rmtree(place)

    each(points, check)


def refuse(scene: Scene, points: list[Call], folder: Path, fault: str) -> None:
    def check(call: Call) -> None:
        place = folder / f"{scene.points.index(call)}"
        house, finished = scene.struck(place, call, fault)
        expect_sound(house)
        assert "Traceback" not in finished.stderr, finished.stderr
        errors = [line for line in finished.stderr.splitlines() if not line.startswith("WARNING: ")]
        expect_end = house.expect_as_before if scene.case.verb == "--abort" else house.expect_restored
        if call.where == "stdout":
            assert (finished.code, finished.stdout) == (1, "")
            assert finished.stderr.startswith("error: the output cannot be written: ")
            expect_end()
        elif finished.code == 0:
            assert errors == []
            outcome = json.loads(finished.stdout)["outcome"]
            assert outcome == ("aborted" if scene.case.verb == "--abort" else "success")
            if house.broken_off() is not None:
                assert "restore --resume" in finished.stderr
                assert house.finish(abort=False).outcome is RestoreOutcome.SUCCESS
            expect_end()
        else:
            assert finished.code == 1
            assert len(errors) == 1, errors
            assert errors[0].startswith("error: ")
            if house.broken_off() is not None:
                assert house.finish(abort=True).outcome is RestoreOutcome.ABORTED
            house.expect_as_before()
        shutil.rmtree(place)

    each(points, check)


def expect_sound(house: RestoreHouse) -> None:
    seen = content(house.target)
    assert seen in {house.old, house.new}, f"neither the old nor the new content: {seen}"


def is_new(house: RestoreHouse) -> bool:
    return house.target.exists() and house.target.read_bytes() == (house.folder / "new.db").read_bytes()


FAULTS: dict[str, Callable[[Scene, list[Call], Path], None]] = {
    "killed": kill,
    "ENOSPC": lambda scene, points, folder: refuse(scene, points, folder, "error=ENOSPC"),
    "EIO": lambda scene, points, folder: refuse(scene, points, folder, "error=EIO"),
}


def test_the_recording_names_every_kind_of_point(tmp_path: Path) -> None:
    """The enumeration is only worth what it finds."""
    points = Scene(tmp_path, Case("with_wal")).points
    assert {(call.name, call.where) for call in points} >= {
        ("mkdir", _STAGING),
        ("pwrite64", f"{_STAGING}/new.db"),
        ("fsync", f"{_STAGING}/new.db"),
        ("chmod", f"{_STAGING}/new.db"),
        ("setxattr", f"{_STAGING}/new.db"),
        ("rename", "state/restore.json"),
        ("mkdir", "data/scpln.db.bak-NEW"),
        ("write", f"{_STAGING}/folded.db"),
        ("rename", "data/scpln.db"),
        ("unlink", "data/scpln.db-wal"),
        ("fsync", "data"),
        ("unlink", "state/restore.json"),
        ("write", "stdout"),
    }
    assert sum(call.name in ("link", "linkat") for call in points) >= 4


ABORT = [Case(kind, "--abort", Phase.SWAPPED) for kind in ("with_wal", "damaged_with_wal")]


def test_killed(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Case("with_wal"))
    kill(scene, firsts([call for call in scene.points if telling(call)]), tmp_path)


@pytest.mark.parametrize(
    "case", [*map(Case, ("plain", "with_hot_journal", "damaged_with_wal", "missing_with_stale_wal")), *ABORT], ids=str
)
def test_killed_beside_the_database(tmp_path: Path, case: Case) -> None:
    scene = Scene(tmp_path, case)
    kill(scene, [call for call in scene.points if beside_the_database(call) and call.name != "fsync"], tmp_path)


@pytest.mark.parametrize("turn", [0, 1], ids=["ENOSPC", "EIO"])
@pytest.mark.parametrize("case", [Case("with_wal"), ABORT[0]], ids=str)
def test_refused(tmp_path: Path, case: Case, turn: int) -> None:
    """Both errors are taken alike nearly everywhere: each strikes every other point."""
    scene = Scene(tmp_path, case)
    points = firsts([call for call in scene.points if telling(call)])
    refuse(scene, points[turn::2], tmp_path, ERRORS[turn])


_NO_LINKS = ["strace", "-qq", "-o", os.devnull, "-e", "inject=link,linkat:error=EPERM"]


@pytest.mark.parametrize("kind", ["with_wal", "with_hot_journal", "damaged_with_wal", "missing_with_stale_wal"])
def test_on_a_file_system_without_hard_links(tmp_path: Path, kind: str) -> None:
    """Copies take their place: a restore works, and one that fails its probe is undone."""
    built = RestoreHouse.build(tmp_path / "house", kind)
    house = built.copied(tmp_path / "done")
    finished = house.program.run("restore", "--yes", prefix=_NO_LINKS)
    assert finished.code == 0, finished.stderr
    house.expect_restored()
    house = built.copied(tmp_path / "undone")
    house.probe_with("false")
    finished = house.program.run("restore", "--yes", "--json", prefix=_NO_LINKS)
    assert json.loads(finished.stdout)["outcome"] == "rolled-back", finished.stderr
    house.expect_as_before(copies=True)


@pytest.mark.large
@pytest.mark.parametrize("kind", ["with_wal", "damaged_with_wal"])
def test_killed_where_there_are_no_hard_links(tmp_path: Path, kind: str) -> None:
    """At every renaming of an undoing, which leaves the copies of that moment."""
    built = RestoreHouse.build(tmp_path / "house", kind)
    built.probe_with("false")
    struck = 0
    while True:
        house = built.copied(tmp_path / f"{struck}")
        house.break_off(Phase.SWAPPED)
        killing = [*_NO_LINKS, "-e", f"inject=rename:signal=KILL:when={struck + 1}"]
        finished = house.program.run("restore", "--abort", prefix=killing)
        expect_sound(house)
        if finished.code == 0:
            break
        assert finished.code == KILLED
        struck += 1
        assert house.program.run("restore", "--abort", prefix=_NO_LINKS).code == 0
        house.expect_as_before(copies=True)
    assert struck >= 4


EVERY_CASE = [
    *(Case(kind) for kind in EVERY_KIND),
    *(Case(kind, "--abort", Phase.SWAPPED) for kind in EVERY_KIND),
    *(Case(kind, "--resume", Phase.FOLDED) for kind in EVERY_KIND),
]


@pytest.mark.large
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("case", EVERY_CASE, ids=str)
def test_every_single_point(tmp_path: Path, case: Case, fault: str) -> None:
    scene = Scene(tmp_path, case)
    FAULTS[fault](scene, scene.points, tmp_path)
