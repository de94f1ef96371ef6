"""Incidents: opened by a restore, written up by people, closed when complete; the operation and the command."""

import json
import os
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from scpln_backup.app import App
from scpln_backup.cli.context import Session
from scpln_backup.cli.incident import incident as command
from scpln_backup.config.load import load
from scpln_backup.errors import BackupError, IncidentError
from scpln_backup.events import Announcer, Event, IncidentClosed, IncidentOpened
from scpln_backup.model import Loss, RestoreOutcome, RestoreRecord, TableFacts, TableLoss
from scpln_backup.operations import incident as incidents
from support.place import Place

TOKYO = ZoneInfo("Asia/Tokyo")
BERLIN = ZoneInfo("Europe/Berlin")
HOUR = timedelta(hours=1)
NOBODY = 65534


def restore(started_at: datetime, **changes) -> RestoreRecord:
    runs = TableLoss(name="runs", before=TableFacts(rows=30), after=TableFacts(rows=7))
    made = RestoreRecord(
        started_at=started_at,
        finished_at=started_at + timedelta(minutes=4),
        artifact="scpln-20261122_0230.db.gz",
        artifact_sha256="ab" * 32,
        target="/opt/scpln/data/scpln.db",
        outcome=RestoreOutcome.SUCCESS,
        replaced=True,
        set_aside="/opt/scpln/data/scpln.db.bak-20261122_1000",
        taken_at=started_at - 8 * HOUR,
        loss=Loss(taken_at=started_at - 8 * HOUR, tables=(runs,)),
        user="alice",
    )
    return replace(made, **changes)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
def heard():
    events: list[Event] = []
    return events


@pytest.fixture
def house(place, heard):
    return App.build(load(place.config, {}), Announcer(heard.append)).house


@pytest.fixture
def opened(house):
    """An incident whose restore began an hour ago."""
    now = house.now()
    return incidents.open_incident(house, restore(now - HOUR), now)


class TestOpen:
    def test_the_restore_opens_it_with_24_hours(self, house, heard):
        now = house.now()
        found = incidents.open_incident(house, restore(now - HOUR), now)
        assert found.deadline_at == now + 23 * HOUR
        assert (found.opened_at, found.closed_at) == (now, None)
        assert house.catalog.incidents() == [found]
        assert house.catalog.restores() == [found.restore]
        assert heard == [IncidentOpened(incident=found)]

    def test_24_hours_that_pass(self):
        """In Berlin the clocks go back at 3:00 that night."""
        deadline = incidents.deadline_of(restore(datetime(2026, 10, 24, 12, 0, tzinfo=BERLIN)))
        assert (deadline.hour, deadline.tzinfo) == (11, BERLIN)

    def test_told_twice_it_is_one_and_heard_twice(self, house, heard, opened):
        again = incidents.open_incident(house, opened.restore, house.now())
        assert again == opened
        assert heard == [IncidentOpened(incident=opened)] * 2
        incidents.set_part(house, opened.id, scope="a", prevention="b")
        incidents.close(house, None, house.now())
        incidents.open_incident(house, opened.restore, house.now())
        assert house.catalog.open_incident() is None
        assert len(heard) == 3

    def test_a_second_restore_opens_its_own(self, house, opened):
        second = incidents.open_incident(house, restore(house.now()), house.now())
        assert [found.id for found in house.catalog.open_incidents()] == [second.id, opened.id]
        assert incidents.chosen(house, None) == second
        assert house.catalog.incident_deadline() == opened.deadline_at
        for act in (lambda: incidents.to_change(house, None), lambda: incidents.close(house, None, house.now())):
            with pytest.raises(IncidentError, match=f"incidents {opened.id}, {second.id} are open: say which"):
                act()
        assert incidents.to_change(house, opened.id) == opened.id


class TestClose:
    def test_not_while_people_have_something_to_write(self, house, heard, opened):
        heard.clear()
        with pytest.raises(IncidentError) as caught:
            incidents.close(house, None, house.now())
        assert "scope (影響範囲) and prevention (再発防止)" in str(caught.value)
        assert f"incident close {opened.id} --scope TEXT --prevention TEXT" in str(caught.value)
        incidents.set_part(house, opened.id, scope="two planners")
        with pytest.raises(IncidentError, match="lacks prevention") as caught:
            incidents.close(house, opened.id, house.now())
        assert "--scope" not in str(caught.value)
        assert house.catalog.open_incident() is not None
        assert heard == []

    def test_when_it_is_complete(self, house, heard, opened):
        incidents.set_part(house, opened.id, scope=" two planners\n")
        incidents.set_part(house, opened.id, prevention="a second power supply")
        now = house.now()
        closed = incidents.close(house, None, now)
        assert (closed.scope, closed.prevention) == ("two planners", "a second power supply")
        assert closed.closed_at == now
        assert house.catalog.incident(opened.id) == closed
        assert heard[-1].incident == closed
        assert isinstance(heard[-1], IncidentClosed)
        assert heard[-1].report == incidents.report(house, closed, house.config.locale)
        with pytest.raises(IncidentError, match="closed already"):
            incidents.close(house, opened.id, now)
        with pytest.raises(IncidentError, match="no incident is open"):
            incidents.close(house, None, now)
        assert incidents.chosen(house, None) == closed
        assert incidents.set_part(house, opened.id, scope="three planners").closed_at == now

    def test_a_text_without_words_is_refused(self, house, opened):
        with pytest.raises(IncidentError, match="scope"):
            incidents.set_part(house, opened.id, scope=" \n", prevention="a second power supply")
        assert house.catalog.incident(opened.id) == opened

    def test_one_that_is_not_there(self, house):
        for act in (
            lambda: incidents.chosen(house, 9),
            lambda: incidents.to_change(house, 9),
            lambda: incidents.set_part(house, 9, scope="x"),
            lambda: incidents.close(house, 9, house.now()),
        ):
            with pytest.raises(IncidentError, match="no incident 9; see: scpln-backup incident list"):
                act()
        with pytest.raises(IncidentError, match="there is no incident"):
            incidents.chosen(house, None)


def run(place: Place, *arguments: str, stdin: str = "") -> Result:
    """The verb in this process; a BackupError is what the command's one place would report."""
    return CliRunner().invoke(command, arguments, obj=Session(str(place.config)), input=stdin)


def done(place: Place, *arguments: str, stdin: str = "") -> str:
    result = run(place, *arguments, stdin=stdin)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def refused(place: Place, *arguments: str, stdin: str = "") -> str:
    result = run(place, *arguments, stdin=stdin)
    assert isinstance(result.exception, BackupError), (result.output, result.exception)
    return str(result.exception)


class TestCommand:
    def test_before_there_is_any(self, place):
        assert "no incidents" in done(place, "list")
        assert json.loads(done(place, "list", "--json")) == []
        assert "no incident" in refused(place, "show")
        assert "no incident is open" in refused(place, "close")

    def test_list(self, place, house, opened):
        text = done(place)
        assert text == done(place, "list")
        assert [found["id"] for found in json.loads(done(place, "--json"))] == [opened.id]
        (row,) = text.splitlines()[1:]
        assert row.split()[0] == str(opened.id)
        assert f"{opened.restore.started_at:%Y-%m-%d %H:%M}" in row
        assert f"{opened.deadline_at:%Y-%m-%d %H:%M}" in row
        assert "23" in row
        assert "h" in row.partition("open, ")[2]
        assert "scope, prevention" in row
        overdue = restore(house.now() - 30 * HOUR)
        incidents.open_incident(house, overdue, house.now())
        assert "open, overdue by 6 h" in done(place, "list")

    def test_show(self, place, opened):
        text = done(place, "show")
        for part in (
            opened.restore.artifact,
            opened.restore.set_aside,
            "by alice",
            "23 rows of runs",
            "not written yet",
        ):
            assert part in text
        assert f"next: scpln-backup incident close {opened.id} --scope TEXT --prevention TEXT" in text
        document = json.loads(done(place, "show", str(opened.id), "--json"))
        assert document["open"] is True
        assert document["missing"] == ["scope", "prevention"]
        assert document["restore"]["loss"]["tables"][0]["name"] == "runs"
        assert datetime.fromisoformat(document["deadline_at"]) == opened.deadline_at

    def test_from_note_to_close(self, place, house, opened, tmp_path):
        written = tmp_path / "scope.md"
        written.write_text("二名の計画担当\n全員に連絡済み\n", encoding="utf-8")
        assert "still empty: prevention" in done(place, "note", "--scope", f"@{written}")
        assert "二名の計画担当 …" in done(place, "show")
        assert "lacks prevention" in refused(place, "close")
        text = done(place, "close", "--prevention", "-", stdin="a second power supply\n")
        assert "closed, within its deadline" in text
        found = house.catalog.incident(opened.id)
        assert (found.scope, found.prevention) == ("二名の計画担当\n全員に連絡済み", "a second power supply")
        assert "closed " in done(place, "list")
        assert json.loads(done(place, "note", str(opened.id), "--scope", "everybody", "--json"))["scope"] == "everybody"

    def test_what_was_written_is_kept_when_it_cannot_be_closed(self, place, house, opened):
        assert "lacks prevention" in refused(place, "close", "--scope", "everybody")
        assert house.catalog.incident(opened.id).scope == "everybody"

    def test_a_text_that_cannot_be_read(self, place, opened, tmp_path):
        (tmp_path / "latin").write_bytes(b"caf\xe9")
        for value, says in ((f"@{tmp_path}/none", "No such file"), (f"@{tmp_path}/latin", "not UTF-8")):
            result = run(place, "note", "--scope", value)
            assert (result.exit_code, says in result.output) == (2, True)
        assert run(place, "note").exit_code == 2

    def test_report(self, place, opened, tmp_path):
        english = done(place, "report")
        assert english.startswith(f"# Incident report {opened.id}: restore of scpln (test)\n")
        assert "[TO BE WRITTEN]" in english
        target = tmp_path / "report.md"
        assert str(target) in done(place, "report", "--locale", "ja", "--output", str(target))
        japanese = target.read_text(encoding="utf-8")
        assert "## 復旧時間" in japanese
        assert target.stat().st_mode & 0o777 == 0o644
        assert "another name" in refused(place, "report", "--output", str(target))
        assert target.read_text(encoding="utf-8") == japanese
        document = json.loads(done(place, "report", str(opened.id), "--locale", "ja", "--json"))
        assert document == {
            "id": opened.id,
            "locale": "ja",
            "missing": ["scope", "prevention"],
            "output": None,
            "text": japanese,
        }

    def test_a_folder_that_is_not_there(self, place, opened):
        assert "/none/report.md: No such" in refused(place, "report", "--output", "/none/report.md")

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give the folders to another user")
    def test_root_may_close_what_root_restored(self, place, house, opened):
        for path in (place.state, *place.state.iterdir()):
            os.chown(path, NOBODY, NOBODY)
        done(place, "close", "--scope", "a", "--prevention", "b")
        assert {path.stat().st_uid for path in place.state.iterdir()} == {NOBODY}


def test_what_the_report_says_comes_from_the_configuration(house, opened):
    assert "scpln（test）" in incidents.report(house, opened, "ja")  # noqa: RUF001 - Japanese punctuation
    assert msgspec.json.encode(opened)
