"""What waits in the outbox gets through to a channel: in order, each letter once, whatever happens in between."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scpln_backup.errors import DeliveryError, LockHeldError
from scpln_backup.events import ArtifactDeleted, RetentionFrozen, RunFinished, RunStarted
from scpln_backup.model import Outcome, RunRecord, Trigger
from scpln_backup.observers.courier import Courier, note_failure, wait_seconds
from scpln_backup.observers.planning import Channel, Step
from scpln_backup.observers.recorder import Recorder
from scpln_backup.records.catalog import Catalog
from scpln_backup.records.outbox import LONGEST_WAIT
from scpln_backup.support.locks import Lock

TOKYO = ZoneInfo("Asia/Tokyo")
NOW = datetime(2026, 11, 22, 2, 30, tzinfo=TOKYO)


class Board(Channel[str]):
    """A channel to a board on which every deleted artifact is written: its name, and then "gone"."""

    name = "board"

    def __init__(self):
        self.written: list[str] = []
        self.doubts: list[bool] = []
        self.problems: list[BaseException] = []
        self.written_before_the_problem = False

    def next_step(self, waiting, causes):
        for entry in waiting:
            if not isinstance(entry.event, ArtifactDeleted):
                continue
            name = entry.event.name
            if name in causes:
                return Step(settles=entry.id, letter=f"{name} is gone", key=f"gone {entry.id}", closes=(name,))
            return Step(settles=entry.id - 1, letter=name, key=f"name {entry.id}", opens=(name,), about=(entry.id,))
        return Step(settles=waiting[-1].id)

    def send(self, letter, key, *, doubtful):
        self.doubts.append(doubtful)
        if doubtful and letter in self.written:
            return f"ref of {letter}"
        if self.problems:
            if self.written_before_the_problem:
                self.written.append(letter)
            raise self.problems.pop(0)
        self.written.append(letter)
        return f"ref of {letter}"


class Desk:
    """A catalog, the board, a courier, and a clock to set."""

    def __init__(self, folder):
        self.folder = folder
        self.now = NOW
        self.catalog = Catalog.open(folder / "catalog.db", TOKYO, NOW, "alice")
        self.catalog.register_channels(["board"])
        self.board = Board()
        self.courier = Courier(self.catalog, self.board, self.lock(), lambda: self.now)

    def lock(self):
        return Lock(self.folder / "deliver-board.lock", "a delivery to board")

    def delete(self, *names):
        for name in names:
            self.catalog.keep_event(ArtifactDeleted(name=name, reason="old"), self.now)

    @property
    def state(self):
        return self.catalog.channel("board")


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def test_everything_gets_through_in_order_and_once(desk):
    desk.delete("a", "b")
    desk.catalog.keep_event(RetentionFrozen(reason="nothing for the board"), NOW)
    for _ in range(2):
        desk.courier.deliver()
    assert desk.board.written == ["a", "a is gone", "b", "b is gone"]
    assert desk.board.doubts == [False] * 4
    assert (desk.state.waiting, desk.state.sent, desk.state.failures) == (0, 4, 0)
    assert desk.catalog.causes("board") == {}
    assert desk.catalog.refs("board", [1, 2]) == {1: ["ref of a"], 2: ["ref of b"]}


def test_what_does_not_get_through_is_tried_again_when_its_time_has_come(desk):
    desk.delete("a", "b")
    desk.board.problems = [DeliveryError("board: away"), DeliveryError("board: still away")]
    desk.courier.deliver()
    assert (desk.state.error, desk.state.attempts, desk.state.waiting) == ("board: away", 1, 2)
    desk.courier.deliver()  # too early: nothing is tried
    assert len(desk.board.doubts) == 1
    desk.now = desk.state.retry_at
    desk.courier.deliver()
    assert (desk.state.error, desk.state.attempts, desk.state.failing_since) == ("board: still away", 2, NOW)
    desk.now = desk.state.retry_at
    desk.courier.deliver()
    assert desk.board.written == ["a", "a is gone", "b", "b is gone"]
    assert desk.board.doubts == [False] * 6
    assert (desk.state.attempts, desk.state.failures, desk.state.error) == (0, 2, None)


def test_a_clock_that_was_ahead_keeps_nothing_back(desk):
    desk.delete("a")
    desk.now = NOW + timedelta(days=365)
    desk.board.problems = [DeliveryError("board: away")]
    desk.courier.deliver()
    desk.now = NOW
    desk.courier.deliver()
    assert desk.board.written == ["a", "a is gone"]


@pytest.mark.parametrize("end", [DeliveryError("board: no answer", unsure=True), KeyboardInterrupt()])
@pytest.mark.parametrize("arrived", [True, False])
def test_a_letter_whose_end_is_not_known_has_one_effect(desk, end, arrived):
    """`KeyboardInterrupt` stands for the end of the process: nothing is noted after it."""
    desk.delete("a")
    desk.board.problems = [end]
    desk.board.written_before_the_problem = arrived
    try:
        desk.courier.deliver()
    except KeyboardInterrupt:
        desk.courier = Courier(desk.catalog, desk.board, desk.lock(), lambda: desk.now)
    desk.delete("b")
    desk.now += timedelta(hours=1)
    desk.courier.deliver()
    assert desk.board.doubts[1] is True
    assert desk.board.written == ["a", "a is gone", "b", "b is gone"]


def test_two_never_deliver_to_one_channel_at_once(desk):
    desk.delete("a")
    with desk.lock(), pytest.raises(LockHeldError, match="a delivery to board"):
        desk.courier.deliver()
    assert desk.board.written == []
    desk.courier.deliver()
    assert desk.board.written == ["a", "a is gone"]


@given(st.integers(1, 10_000), st.booleans(), st.none() | st.floats(0, 1e6))
def test_the_wait_grows_to_a_limit_and_is_never_shorter_than_the_service_asks_for(attempts, permanent, asked):
    error = DeliveryError("no", permanent=permanent, retry_after_seconds=asked)
    wait = wait_seconds(attempts, error)
    assert wait >= min(asked or 0, LONGEST_WAIT.total_seconds())
    assert wait <= min(max(900, asked or 0), LONGEST_WAIT.total_seconds())
    assert wait_seconds(attempts + 1, error) >= wait
    assert wait_seconds(1, DeliveryError("no")) <= 5  # a hiccup is over at once


def test_what_happens_while_nothing_waits_is_not_passed_over(desk, monkeypatch):
    """In the instant between the look at what waits and the note that all is settled."""
    desk.delete("a")
    desk.courier.deliver()
    waiting = desk.catalog.waiting

    def and_then_something_happens(state):
        found = waiting(state)
        if not found and "b" not in desk.board.written:
            monkeypatch.setattr(desk.catalog, "waiting", waiting)
            desk.delete("b")
        return found

    monkeypatch.setattr(desk.catalog, "waiting", and_then_something_happens)
    desk.courier.deliver()
    desk.courier.deliver()
    assert desk.board.written == ["a", "a is gone", "b", "b is gone"]


def test_a_channel_that_is_not_registered_is_left_alone(desk):
    desk.delete("a")
    desk.catalog.register_channels([])
    desk.courier.deliver()
    assert desk.board.written == []
    note_failure(desk.catalog, "board", DeliveryError("no"), NOW)
    assert desk.catalog.channels() == []


# The recorder, while the catalog cannot be written


class Locked:
    """The catalog's folder without the right to write, for a user who is not root; here: no catalog at all."""

    def __init__(self, desk):
        self._path = desk.catalog.path
        self._aside = self._path.with_name("aside")

    def __enter__(self):
        self._path.rename(self._aside)
        self._path.mkdir()

    def __exit__(self, *_):
        self._path.rmdir()
        self._aside.rename(self._path)


def tell(desk, recorder):
    entry, doubtful = recorder.begin("board")
    causes = desk.courier.deliver_loose([entry], recorder.causes("board"), doubtful=doubtful)
    recorder.end("board", entry, told=True, unsure=False, causes=causes)


def test_what_cannot_be_kept_is_held_told_and_kept_later_without_being_told_twice(desk, caplog):
    woken = []
    recorder = Recorder(desk.catalog, now=lambda: desk.now, kept=lambda: woken.append(1))
    with Locked(desk):
        recorder(ArtifactDeleted(name="a", reason="old"))
        assert [entry.event.name for entry in recorder.loose("board")] == ["a"]
        tell(desk, recorder)
        assert recorder.loose("board") == []
        assert [entry.event.name for entry in recorder.loose("other")] == ["a"]
        recorder(ArtifactDeleted(name="b", reason="old"))
    assert desk.board.written == ["a", "a is gone"]
    assert len(woken) == 2
    recorder.keep_loose()
    assert (recorder.loose("board"), recorder.loose("other")) == ([], [])
    assert [entry.event.name for entry in desk.catalog.entries()] == ["a", "b"]
    desk.courier.deliver()
    assert desk.board.written == ["a", "a is gone", "b", "b is gone"]
    assert "held in memory" in caplog.text


def test_what_is_being_told_is_not_moved_into_the_outbox_to_be_told_again(desk):
    recorder = Recorder(desk.catalog, now=lambda: desk.now, kept=lambda: None)
    with Locked(desk):
        recorder(ArtifactDeleted(name="a", reason="old"))
    entry, _ = recorder.begin("board")
    recorder.keep_loose()
    assert desk.catalog.entries() == []
    recorder.end("board", entry, told=False, unsure=True, causes={})
    assert recorder.begin("board") == (entry, True)  # it may have arrived: it is looked for first
    recorder.end("board", entry, told=True, unsure=False, causes={})
    recorder.keep_loose()
    desk.courier.deliver()
    assert desk.board.written == []


def test_a_run_that_could_not_be_recorded_is_recorded_later(desk):
    """Else the alarm for an overdue backup would go by a catalog that never heard of it."""
    recorder = Recorder(desk.catalog, now=lambda: desk.now, kept=lambda: None)
    run = RunRecord(trigger=Trigger.CLI, started_at=NOW, finished_at=NOW, outcome=Outcome.SUCCESS)
    with Locked(desk):
        recorder(RunFinished(record=run))
    recorder.keep_loose()
    assert desk.catalog.last_good().started_at == NOW
    assert [entry.event.record.started_at for entry in desk.catalog.entries()] == [NOW]


def test_a_reload_hands_over_what_could_not_be_kept(desk):
    first = Recorder(desk.catalog, now=lambda: desk.now, kept=lambda: None)
    second = Recorder(desk.catalog, now=lambda: desk.now, kept=lambda: None)
    with Locked(desk):
        first(ArtifactDeleted(name="a", reason="old"))
        second.take_over(first)
    second.keep_loose()
    assert [entry.event.name for entry in desk.catalog.entries()] == ["a"]
    assert first.loose("board") == []


def test_what_had_failed_and_is_for_nobody_any_more_is_no_failure(desk):
    desk.delete("a")
    desk.board.problems = [DeliveryError("board: away")]
    desk.courier.deliver()
    desk.catalog.settle("board", 1)
    desk.now += timedelta(hours=1)
    desk.courier.deliver()
    assert (desk.state.failing_since, desk.state.error, desk.state.waiting) == (None, None, 0)


def test_only_what_lasts_is_kept(desk):
    woken = []
    recorder = Recorder(desk.catalog, now=lambda: desk.now, kept=lambda: woken.append(1))
    recorder(RunStarted(trigger=Trigger.CLI, started_at=NOW))
    assert (desk.catalog.entries(), woken) == ([], [])
