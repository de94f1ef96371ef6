"""A run that is stopped or killed in its middle: ^C, SIGTERM, and the death of either of its processes.

The middle is made by the database being locked: the worker has made its first pass and waits.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scpln_backup.model import Outcome
from support.fault_house import FaultHouse, Halted, build, copied, expect_clear
from support.faults import KILLED, PATIENCE, Finished

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> FaultHouse:
    return build(tmp_path_factory.mktemp("house"))


@pytest.fixture
def house(begun: FaultHouse, tmp_path: Path) -> FaultHouse:
    return copied(begun, tmp_path / "house")


@pytest.fixture
def halted(house: FaultHouse) -> Iterator[Halted]:
    with Halted(house) as run:
        yield run


def expect_given_up(halted: Halted, finished: Finished) -> None:
    assert finished.code == 130
    document = expect_clear(finished)
    assert (document["outcome"], document["artifact"]) == ("failed", None)
    assert "stopped" in document["error"]
    record = halted.house.app.catalog.last_finished()
    assert record is not None
    assert (record.outcome, record.interrupted) == (Outcome.FAILED, True)
    assert record.finished_at is not None
    assert list(halted.house.app.store.staging.iterdir()) == []
    halted.go_on()
    assert halted.house.expect_whole() == {}
    halted.house.expect_next_run_clean()


def test_ctrl_c_reaches_the_command_alone_which_gives_the_run_up(halted: Halted) -> None:
    os.killpg(halted.process.pid, signal.SIGINT)
    expect_given_up(halted, halted.end())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_asked_to_stop(halted: Halted, number: signal.Signals) -> None:
    halted.process.send_signal(number)
    expect_given_up(halted, halted.end())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_the_worker_leaves_signals_to_its_parent(halted: Halted, number: signal.Signals) -> None:
    os.kill(halted.worker, number)
    halted.go_on()
    finished = halted.end()
    assert (finished.code, finished.stderr) == (0, "")
    halted.house.expect_clean(*halted.house.expect_whole())


def test_the_worker_dies(halted: Halted) -> None:
    os.kill(halted.worker, signal.SIGKILL)
    finished = halted.end()
    assert finished.code == 1
    assert "killed; out of memory?" in expect_clear(finished)["error"]
    record = halted.house.app.catalog.last_finished()
    assert record is not None
    assert (record.outcome, record.interrupted) == (Outcome.FAILED, False)
    assert list(halted.house.app.store.staging.iterdir()) == []
    halted.go_on()
    halted.house.expect_next_run_clean(*halted.house.expect_whole())


def test_the_worker_dies_with_the_command_and_the_lock_with_both(halted: Halted) -> None:
    halted.process.kill()
    assert halted.end().code == KILLED
    halted.house.wait_until_free()  # the database is locked still: the worker ended because its parent did
    # The kernel closes its files, and with them frees the lock, an instant before the process is gone.
    deadline = time.monotonic() + 20
    while not _is_zombie(halted.worker):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    record = halted.house.app.catalog.last_finished()
    assert record is not None
    assert (record.outcome, record.interrupted, record.finished_at) == (Outcome.FAILED, True, None)
    halted.go_on()
    assert halted.house.expect_whole() == {}
    halted.house.expect_next_run_clean()


def _is_zombie(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("verb", [["backup"], ["sweep"], ["verify"]])
def test_nobody_else_works_meanwhile(halted: Halted, verb: list[str]) -> None:
    finished = halted.house.program.run(*verb, "--json")
    assert finished.code == 75
    assert str(halted.process.pid) in expect_clear(finished)["error"]


def test_a_reader_of_our_output_that_went_away(house: FaultHouse) -> None:
    process = house.program.start("backup", "--json")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as stderr:
        said = stderr.read()
    assert (process.wait(PATIENCE), said) == (1, "")
    house.expect_clean(*house.expect_whole())
