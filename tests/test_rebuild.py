"""Rebuilds for the open incident, with real scripts and a real catalog."""

import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from scpln_backup.app import App
from scpln_backup.config.load import load
from scpln_backup.errors import ConfigError, IncidentError, LockHeldError
from scpln_backup.model import Incident, Loss, Outcome, RestoreOutcome, RestoreRecord
from scpln_backup.operations.rebuild import proposed_since, rebuild
from support.place import Place

SCRIPT = """
import os, sqlite3, sys
assert sys.argv[1] == "--since", sys.argv
with sqlite3.connect(os.environ["SCPLN_DB"]) as connection:
    connection.execute("UPDATE runs SET summary = ?", (sys.argv[2],))
print("rebuilt since", sys.argv[2])
"""


class House:
    """A place with an open incident."""

    def __init__(self, folder: Path) -> None:
        self.place = Place(folder)
        self.application = folder / "application"
        self.application.mkdir()
        self.script(SCRIPT)
        self.place.configure("rebuild", command=[sys.executable, "rebuild.py"], directory=str(self.application))
        self.app = App.build(load(self.place.config, {}))
        self.cancel = threading.Event()

    def script(self, code: str) -> None:
        (self.application / "rebuild.py").write_text(code)

    def open_incident(self, **facts) -> Incident:
        now = self.app.now()
        taken_at = now - timedelta(days=2)
        restore = RestoreRecord(
            started_at=now,
            artifact="scpln-20261120_0230.db.gz",
            target=str(self.place.source),
            outcome=RestoreOutcome.SUCCESS,
            taken_at=taken_at,
            loss=Loss(taken_at=taken_at, tables=()),
            replaced=True,
        )
        incident = Incident(
            opened_at=now,
            deadline_at=now + timedelta(hours=24),
            restore=msgspec.structs.replace(restore, **facts),
        )
        number = self.app.catalog.add_incident(incident)
        return self.app.catalog.incident(number)

    def rebuild(self, since: str | None = None):
        record, incident = rebuild(self.app.house, since, self.cancel)
        assert self.app.catalog.incident(incident.id) == incident
        assert incident.rebuilds[-1] == record
        assert record.finished_at >= record.started_at
        return record, incident

    def summaries(self) -> set[str]:
        with closing(sqlite3.connect(self.place.source)) as connection:
            return {row[0] for row in connection.execute("SELECT summary FROM runs")}


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def wait_until_up(fifo: Path) -> None:
    """Wait until the script says so in the fifo."""
    descriptor = os.open(fifo, os.O_RDWR)
    try:
        assert select.select([descriptor], [], [], 30)[0]
        assert os.read(descriptor, 2) == b"up"
    finally:
        os.close(descriptor)


def test_the_date_comes_from_what_was_lost(house):
    opened = house.open_incident()
    day = f"{opened.restore.loss.taken_at:%Y-%m-%d}"
    assert proposed_since(house.app.house) == day
    record, incident = house.rebuild()
    assert (record.outcome, record.since, record.exit_code, record.error) == (Outcome.SUCCESS, day, 0, None)
    assert incident.id == opened.id
    assert house.summaries() == {day}
    output = Path(record.output)
    assert output.parent == house.place.state / "rebuilds"
    assert output.stat().st_mode & 0o777 == 0o600
    assert output.read_text().splitlines()[1:] == [f"rebuilt since {day}"]


def test_a_date_of_the_operators(house):
    house.open_incident()
    assert house.rebuild("2026-01-31")[0].since == "2026-01-31"
    assert house.summaries() == {"2026-01-31"}


def test_without_a_loss_the_snapshots_day_is_taken(house):
    opened = house.open_incident(loss=None)
    assert house.rebuild()[0].since == f"{opened.restore.taken_at:%Y-%m-%d}"


def test_when_nothing_is_known_the_operator_has_to_say_it(house):
    house.open_incident(loss=None, taken_at=None)
    with pytest.raises(IncidentError, match="--since YYYY-MM-DD"):
        house.rebuild()
    assert house.rebuild("2026-01-31")[0].outcome is Outcome.SUCCESS


@pytest.mark.parametrize("since", ["", "yesterday", "20260131", "2026-W05-6", "2026-02-30", "2026-1-1", "9999-01-01"])
def test_a_wrong_date(house, since):
    house.open_incident()
    with pytest.raises(ConfigError, match=r"^--since "):
        house.rebuild(since)
    assert house.app.catalog.open_incident().rebuilds == ()


def test_no_incident(house):
    assert proposed_since(house.app.house) is None
    with pytest.raises(IncidentError, match="scpln-backup incident list"):
        house.rebuild()


def test_no_script(house):
    house.open_incident()
    house.place.configure("rebuild", directory="/")
    path = house.place.folder / "without.toml"
    text = house.place.config.read_text()
    path.write_text("\n".join(text.split("[rebuild]")[:1]) + "[rebuild]\ncommand = []\n")
    with pytest.raises(ConfigError, match=r"\[rebuild\] command is empty"):
        rebuild(App.build(load(path, {})).house, None, house.cancel)


def test_failures_are_added_one_after_another(house):
    house.open_incident()
    house.script("import sys; print('no artifacts for 2026-01'); sys.exit(9)")
    record, _ = house.rebuild("2026-01-01")
    assert (record.outcome, record.exit_code) == (Outcome.FAILED, 9)
    assert record.error.startswith("the rebuild script failed with exit code 9: no artifacts for 2026-01; its output: ")
    (house.application / "rebuild.py").unlink()
    house.rebuild("2026-01-02")
    house.script(SCRIPT)
    _, incident = house.rebuild("2026-01-03")
    assert [(known.since, known.outcome) for known in incident.rebuilds] == [
        ("2026-01-01", Outcome.FAILED),
        ("2026-01-02", Outcome.FAILED),
        ("2026-01-03", Outcome.SUCCESS),
    ]


def test_what_people_write_meanwhile_is_kept(house):
    opened = house.open_incident()
    fifo, go = house.application / "up", house.application / "go"
    os.mkfifo(fifo)
    os.mkfifo(go)
    house.script("open('up', 'w').write('up'); open('go').read()")

    def write() -> None:
        wait_until_up(fifo)
        begun = house.app.catalog.incident(opened.id)
        assert [(known.outcome, known.finished_at) for known in begun.rebuilds] == [(Outcome.FAILED, None)]
        house.app.catalog.update_incident(msgspec.structs.replace(begun, scope="all plans of Friday"))
        go.write_text("go")

    writer = threading.Thread(target=write)
    writer.start()
    record, incident = house.rebuild()
    writer.join()
    assert record.outcome is Outcome.SUCCESS
    assert incident.scope == "all plans of Friday"


def test_one_at_a_time_and_interrupted(house):
    house.open_incident()
    fifo = house.application / "up"
    os.mkfifo(fifo)
    house.script("import signal; open('up', 'w').write('up'); signal.pause()")
    refused = []

    def interrupt() -> None:
        wait_until_up(fifo)
        try:
            rebuild(house.app.house, None, threading.Event())
        except LockHeldError as error:
            refused.append(str(error))
        house.cancel.set()

    thread = threading.Thread(target=interrupt)
    thread.start()
    record, incident = house.rebuild()
    thread.join()
    assert (record.outcome, record.exit_code) == (Outcome.FAILED, None)
    assert record.error.startswith("the rebuild script was interrupted after")
    assert len(incident.rebuilds) == 1
    assert "a rebuild" in refused[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as somebody else")
def test_as_root_it_runs_as_the_databases_owner(house):
    """The owner's state folder gets no files that it could not write."""
    for path in (house.place.source.parent, house.place.source, house.place.state, *house.place.state.rglob("*")):
        os.chown(path, 65534, 65534)
    house.open_incident()
    path = house.place.folder / "root.toml"
    script = ["/usr/bin/python3", "-c", "import os, sys; print(os.getuid(), os.environ['USER'], *sys.argv[1:])"]
    text = house.place.config.read_text().replace(json.dumps([sys.executable, "rebuild.py"]), json.dumps(script))
    path.write_text(text.replace(json.dumps(str(house.application)), '"/usr"'))
    app = App.build(load(path, {}), as_root=True)
    record, _ = rebuild(app.house, "2026-01-31", house.cancel)
    assert (record.outcome, record.error) == (Outcome.SUCCESS, None)
    assert Path(record.output).read_text().splitlines()[1:] == ["65534 nobody --since 2026-01-31"]
    assert {item.stat().st_uid for item in house.place.state.rglob("*")} == {65534}
    assert app.catalog.open_incident().rebuilds[-1] == record


class TestCommand:
    """`scpln-backup rebuild`."""

    def test_document(self, house):
        opened = house.open_incident()
        document = house.place.json("rebuild", "--since", "2026-01-31")
        assert {name: document[name] for name in ("outcome", "since", "exit_code", "incident")} == {
            "outcome": "success",
            "since": "2026-01-31",
            "exit_code": 0,
            "incident": opened.id,
        }

    def test_text(self, house):
        house.open_incident()
        done = house.place.run("rebuild", "--since", "2026-01-31")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[0] == "rebuild since 2026-01-31  success"

    def test_refusals(self, house):
        assert house.place.json("rebuild", code=1)["error"].startswith("no incident is open")
        house.open_incident()
        assert "not a date" in house.place.json("rebuild", "--since", "x", code=2)["error"]

    def test_interrupted(self, house):
        house.open_incident()
        os.mkfifo(house.application / "up")
        house.script("import signal; open('up', 'w').write('up'); signal.pause()")
        with subprocess.Popen(
            house.place.command("rebuild", "--json"), env=house.place.environment(), stdout=subprocess.PIPE
        ) as process:
            wait_until_up(house.application / "up")
            process.send_signal(signal.SIGINT)
            document = json.loads(process.stdout.read())
        assert process.returncode == 130
        assert document["outcome"] == "failed"
