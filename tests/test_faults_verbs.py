"""`sweep`, `verify`, `pin` and `unpin`, killed or refused at each of their writes, syncs, renames and unlinks.

By default the points inside the backup root, with one of the two errors each; `-m large` strikes those inside the
catalog as well, with both.
"""

import shutil
from pathlib import Path

import pytest

from support.fault_house import FaultHouse, build, copied, distinct, each, shared_out, struck
from support.faults import KILLED, Call, why_impossible

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(why_impossible() is not None, reason=str(why_impossible())),
]

FAULTS = ("signal=KILL", "error=ENOSPC", "error=EIO")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> FaultHouse:
    return build(tmp_path_factory.mktemp("house"))


def recent(house: FaultHouse) -> str:
    return max(house.past.files)


def legacy(house: FaultHouse) -> str:
    return next(name for name, state in house.past.states.items() if state == "unverified")


def strike_all(house: FaultHouse, folder: Path, fault: str, verb: tuple[str, ...], *, everything: bool) -> None:
    points = distinct(copied(house, folder / "recorded").program.record(*verb))
    if not everything:
        points = shared_out([call for call in points if call.where.startswith("root")], fault)

    def check(call: Call) -> None:
        place = folder / f"{points.index(call)}"
        case, finished = struck(house, place, call, fault, *verb)
        if fault == "signal=KILL":
            assert finished.code == KILLED
        else:
            assert finished.code in {0, 1}
            assert "Traceback" not in finished.stderr, finished.stderr
            if call.where.startswith("root"):
                assert finished.code == 1, "nothing was said"
                assert f"{place}/root" in finished.stdout + finished.stderr
        assert case.expect_whole(sweeping=verb[0] == "sweep") == {}
        again = case.program.run(*verb)
        assert (again.code, again.stderr) == (0, "")
        case.expect_next_run_clean()
        shutil.rmtree(place)

    each(points, check)


def verbs(house: FaultHouse) -> dict[str, tuple[str, ...]]:
    return {
        "sweep": ("sweep",),
        "verify": ("verify", recent(house)),
        "verify-legacy": ("verify", legacy(house)),
        "pin": ("pin", recent(house)),
        "unpin": ("unpin", recent(house)),
    }


VERBS = ("sweep", "verify", "verify-legacy", "pin", "unpin")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("verb", VERBS)
def test_struck(house: FaultHouse, tmp_path: Path, verb: str, fault: str) -> None:
    begun = prepared(house, tmp_path / "begun", verb)
    strike_all(begun, tmp_path, fault, verbs(house)[verb], everything=False)


@pytest.mark.large
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("verb", VERBS)
def test_struck_in_the_catalog_too(house: FaultHouse, tmp_path: Path, verb: str, fault: str) -> None:
    begun = prepared(house, tmp_path / "begun", verb)
    strike_all(begun, tmp_path, fault, verbs(house)[verb], everything=True)


def prepared(house: FaultHouse, folder: Path, verb: str) -> FaultHouse:
    """A house in which the verb has something to do."""
    if verb != "unpin":
        return house
    begun = copied(house, folder)
    begun.app.store.pin(recent(house), pinned=True)
    return begun
