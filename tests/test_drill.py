"""Drills: real artifacts of the sample database, real smoke tests, and what is left afterwards."""

import json
import os
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from scpln_backup.app import App
from scpln_backup.config.load import load
from scpln_backup.errors import LockHeldError
from scpln_backup.events import DrillFinished
from scpln_backup.model import Outcome, State, Trigger
from scpln_backup.operations.drill import drill
from scpln_backup.support import keeper
from support.place import COMMAND, Place

COUNT = """
import os, sqlite3
with sqlite3.connect(os.environ["SCPLN_DB"]) as connection:
    print(connection.execute("SELECT count(*) FROM runs").fetchone()[0], "runs")
"""


class House:
    """A place with one good backup, and drills in this process."""

    def __init__(self, folder: Path) -> None:
        self.place = Place(folder)
        self.application = folder / "application"
        self.application.mkdir()
        self.place.configure("drill", directory=str(self.application), timeout_seconds=60)
        self.events = []
        self.cancel = threading.Event()

    def smoke_test(self, code: str) -> None:
        (self.application / "smoke.py").write_text(code)

    def app(self, **settings) -> App:
        settings = {"command": [sys.executable, "smoke.py"], **settings}
        path = self.place.folder / "drill.toml"
        text = self.place.config.read_text()
        for name, value in settings.items():
            lines = [line for line in text.splitlines() if not line.startswith(f"{name} = ") or "[drill]" not in text]
            text = "\n".join(lines) + "\n"
            text = text.replace("[drill]\n", f"[drill]\n{name} = {json.dumps(value)}\n")
        path.write_text(text)
        app = App.build(load(path, {}))
        app.announce.subscribe(self.events.append)
        return app

    def drill(self, **settings):
        app = self.app(**settings)
        record = drill(app.house, Trigger.CLI, self.cancel)
        # What was announced, what the catalog says and what the caller gets are one.
        assert [event for event in self.events if isinstance(event, DrillFinished)][-1] == DrillFinished(record=record)
        assert app.catalog.last_drill() == record
        assert record.finished_at is not None
        # Nothing is left, and the next run is not hindered.
        assert list(app.store.staging.iterdir()) == []
        with app.house.run_lock("a test"):
            return record


@pytest.fixture(scope="module")
def backed_up(tmp_path_factory) -> Path:
    """A backup root with one good artifact."""
    place = Place(tmp_path_factory.mktemp("backed_up"))
    place.backup()
    return place.root


@pytest.fixture
def house(tmp_path: Path, backed_up: Path) -> House:
    house = House(tmp_path)
    house.smoke_test(COUNT)
    shutil.copytree(backed_up, house.place.root)
    return house


def newest(house: House) -> Path:
    (path,) = house.place.root.glob("*/*.db.gz")
    return path


def damage(path: Path) -> None:
    """Other bytes of the same length in the middle: a deflate stream that goes wrong somewhere."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = b"\xa5" * 64
    path.write_bytes(content)


def wait_until_up(fifo: Path) -> None:
    """Wait until the smoke test says so in the fifo."""
    descriptor = os.open(fifo, os.O_RDWR)
    try:
        assert select.select([descriptor], [], [], 30)[0]
        assert os.read(descriptor, 2) == b"up"
    finally:
        os.close(descriptor)


def test_success(house):
    record = house.drill()
    assert (record.outcome, record.error, record.smoke_exit_code) == (Outcome.SUCCESS, None, 0)
    assert record.artifact == newest(house).name
    assert 0 < record.restore_seconds < 30
    assert (record.trigger, record.id) == (Trigger.CLI, 1)
    assert record.finished_at > record.started_at
    with closing(sqlite3.connect(house.place.source)) as connection:
        runs = connection.execute("SELECT count(*) FROM runs").fetchone()[0]
    output = Path(record.output)
    assert output.parent == house.place.state / "drills"
    assert output.name == f"drill-{record.started_at:%Y%m%d_%H%M%S}.log"
    assert output.stat().st_mode & 0o777 == 0o600
    first, *rest = output.read_text().splitlines()
    assert first.endswith(f"smoke test of {record.artifact}: {sys.executable} smoke.py  in {house.application}")
    assert rest == [f"{runs} runs"]


def test_the_copy_is_private_and_writable_and_not_the_live_database(house):
    house.smoke_test(
        "import os, sqlite3, stat\n"
        "path = os.environ['SCPLN_DB']\n"
        f"assert not os.path.samefile(path, {str(house.place.source)!r})\n"
        "assert stat.S_IMODE(os.stat(path).st_mode) == 0o600\n"
        "assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700\n"
        "connection = sqlite3.connect(path)\n"
        "connection.execute('PRAGMA journal_mode = wal')\n"
        "connection.execute('DELETE FROM runs')\n"
        "connection.commit()\n"
        "os._exit(0)\n"
    )
    before = house.place.source.read_bytes()
    assert house.drill().outcome is Outcome.SUCCESS
    assert house.place.source.read_bytes() == before


def test_without_a_smoke_test(house):
    record = house.drill(command=[])
    assert (record.outcome, record.smoke_exit_code, record.output) == (Outcome.SUCCESS, None, None)
    assert record.restore_seconds > 0
    assert not (house.place.state / "drills").exists()


def test_it_proves_the_artifact_again(house):
    app = house.app()
    drill(app.house, Trigger.SCHEDULE, house.cancel)
    artifact = app.store.get(newest(house).name)
    assert artifact.state is State.VERIFIED
    assert artifact.manifest.verified_at > artifact.manifest.run.finished_at


def test_a_failing_smoke_test(house):
    house.smoke_test("import sys; print('assert 3 == 4\\n'); sys.exit(7)")
    record = house.drill()
    assert (record.outcome, record.smoke_exit_code) == (Outcome.FAILED, 7)
    assert record.restore_seconds > 0
    assert record.error == f"the smoke test failed with exit code 7: assert 3 == 4; its output: {record.output}"


def test_a_hanging_smoke_test(house):
    house.smoke_test("import os, signal\nif os.fork() == 0: os.setsid()\nprint('up', flush=True)\nsignal.pause()")
    record = house.drill(timeout_seconds=1)
    assert (record.outcome, record.smoke_exit_code) == (Outcome.FAILED, None)
    assert record.error.startswith("the smoke test had not ended after 1.0 s, and was ended with all it had started")
    assert keeper.children(os.getpid()) == []


def test_a_smoke_test_that_cannot_be_started(house):
    record = house.drill(command=["no-such-make", "smoke-test"])
    assert (record.outcome, record.smoke_exit_code) == (Outcome.FAILED, None)
    assert "no-such-make: cannot be started in" in record.error


def test_what_the_smoke_test_locks_up_is_removed_too(house):
    house.smoke_test(
        "import os\n"
        "os.chdir(os.path.dirname(os.environ['SCPLN_DB']))\n"
        "os.makedirs('a/b/c'); open('a/b/c/file', 'w').close(); os.symlink('/etc', 'a/b/link')\n"
        "for folder in ('a/b/c', 'a/b', 'a', '.'): os.chmod(folder, 0o000)\n"
    )
    assert house.drill().outcome is Outcome.SUCCESS


@pytest.mark.skipif(os.geteuid() != 0, reason="root is not kept out by permissions, so this needs somebody else")
def test_what_is_locked_up_is_removed_without_root(tmp_path):
    folder = tmp_path / "drill-x"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "file").touch()
    code = (
        "import os, pathlib, sys\n"
        "from scpln_backup.support import trees\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "for name in ('a/b', 'a', '.'): (folder / name).chmod(0)\n"
        "trees.remove(folder)\n"
        "trees.remove(folder)\n"
    )
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 65534, 65534)
    for path in tmp_path.parents:
        if path.stat().st_uid == 0 and path != Path("/") and path.name != "tmp":
            path.chmod(path.stat().st_mode | 0o011)
    subprocess.run([sys.executable, "-c", code, folder], check=True)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_artifact(house):
    damage(newest(house))
    record = house.drill()
    assert (record.outcome, record.restore_seconds, record.smoke_exit_code) == (Outcome.FAILED, None, None)
    assert record.error.startswith(f"{record.artifact}: ")
    assert record.error.endswith("it counts as corrupt now, make a new backup")
    assert house.app().store.scan()[0].state is State.CORRUPT
    # The next one looks at what is still good: here, nothing.
    record = house.drill()
    assert record.artifact is None
    assert record.error.startswith("no verified artifact is under")


def test_another_database_in_the_artifact(house):
    """It decompresses, and is a sound database; it is not the one that was backed up."""
    path = newest(house)
    with closing(sqlite3.connect(house.place.source)) as connection:
        connection.execute("DELETE FROM runs WHERE rowid = (SELECT min(rowid) FROM runs)")
        connection.commit()
    packed = subprocess.run(["gzip", "-c"], input=house.place.source.read_bytes(), capture_output=True, check=True)
    path.write_bytes(packed.stdout)
    manifest = json.loads(Path(f"{path}.json").read_text())
    manifest["bytes"] = len(packed.stdout)
    Path(f"{path}.json").write_text(json.dumps(manifest))
    record = house.drill()
    assert record.outcome is Outcome.FAILED
    assert "its sha256 differs from the manifest's" in record.error


def test_no_artifact(tmp_path):
    house = House(tmp_path)
    app = house.app()
    record = drill(app.house, Trigger.CLI, house.cancel)
    assert (record.outcome, record.artifact) == (Outcome.FAILED, None)
    assert record.error == f"no verified artifact is under {house.place.root}; make one: scpln-backup backup"


def test_unverified_and_suspect_ones_are_passed_over(house):
    good = newest(house).name
    house.place.legacy("scpln-20991231_0230.db.gz", days_old=0)
    assert house.drill().artifact == good


def test_interrupted(house):
    fifo = house.application / "up"
    os.mkfifo(fifo)
    house.smoke_test("import signal\nwith open('up', 'w') as up: up.write('up')\nsignal.pause()")

    def interrupt():
        wait_until_up(fifo)
        house.cancel.set()

    thread = threading.Thread(target=interrupt)
    thread.start()
    record = house.drill()
    thread.join()
    assert record.outcome is Outcome.FAILED
    assert record.error.startswith("the smoke test was interrupted after")
    assert keeper.children(os.getpid()) == []


def test_interrupted_while_it_restores(house):
    house.cancel.set()
    record = house.drill()
    assert (record.outcome, record.restore_seconds) == (Outcome.FAILED, None)
    assert "interrupted" in record.error
    assert house.app().store.scan()[0].state is State.VERIFIED  # nothing was found out about it


def test_the_run_lock(house):
    app = house.app()
    with app.house.run_lock("a backup"), pytest.raises(LockHeldError, match="a backup"):
        drill(app.house, Trigger.CLI, house.cancel)
    assert app.catalog.drills() == []


def test_ten_outputs_are_kept(house):
    folder = house.place.state / "drills"
    folder.mkdir(parents=True)
    for number in range(12):
        old = folder / f"drill-20250101_0000{number:02}.log"
        old.touch()
        os.utime(old, (number, number))
    (folder / "notes.txt").touch()
    record = house.drill()
    kept = sorted(path.name for path in folder.iterdir())
    assert kept == [
        *(f"drill-20250101_0000{number:02}.log" for number in range(3, 12)),
        Path(record.output).name,
        "notes.txt",
    ]


def test_a_killed_drill_is_cleared_away_by_the_next(house):
    fifo = house.application / "up"
    os.mkfifo(fifo)
    house.smoke_test(
        "import os, signal\nos.chmod(os.path.dirname(os.environ['SCPLN_DB']), 0)\n"
        "with open('up', 'w') as up: up.write('up')\nsignal.pause()"
    )
    app = house.app()
    argv = [COMMAND, "-c", house.place.folder / "drill.toml", "drill"]
    with subprocess.Popen(argv, env=house.place.environment(), stdout=subprocess.DEVNULL) as process:
        wait_until_up(fifo)
        watched = [os.pidfd_open(pid) for pid, _ in keeper.descendants(process.pid)]
        process.kill()
    for descriptor in watched:  # until each of them has ended
        assert select.select([descriptor], [], [], 30)[0]
        os.close(descriptor)
    assert [path.name[:6] for path in app.store.staging.iterdir()] == ["drill-"]
    assert app.catalog.last_drill().outcome is Outcome.FAILED
    house.smoke_test(COUNT)
    assert house.drill().outcome is Outcome.SUCCESS


class TestCommand:
    """`scpln-backup drill`."""

    def test_document(self, house):
        house.place.configure("drill", command=[sys.executable, "smoke.py"])
        document = house.place.json("drill")
        assert list(document)[:5] == ["outcome", "artifact", "restore_seconds", "smoke_exit_code", "error"]
        assert (document["outcome"], document["smoke_exit_code"], document["error"]) == ("success", 0, None)

    def test_text(self, house):
        house.place.configure("drill", command=[sys.executable, "smoke.py"])
        done = house.place.run("drill")
        assert done.returncode == 0
        assert done.stderr == ""
        assert done.stdout.splitlines()[0] == f"{newest(house).name}  success"
        assert f"  smoke test  passed: {sys.executable} smoke.py" in done.stdout

    def test_failure(self, house):
        house.smoke_test("raise SystemExit(3)")
        house.place.configure("drill", command=[sys.executable, "smoke.py"])
        assert house.place.json("drill", code=1)["smoke_exit_code"] == 3
        done = house.place.run("drill")
        assert done.stderr.startswith("error: the smoke test failed with exit code 3; its output: ")

    def test_the_lock(self, house):
        app = house.app()
        with app.house.run_lock("a backup"):
            assert house.place.run("drill").returncode == 75

    def test_interrupted(self, house):
        os.mkfifo(house.application / "up")
        house.smoke_test("import signal\nwith open('up', 'w') as up: up.write('up')\nsignal.pause()")
        house.place.configure("drill", command=[sys.executable, "smoke.py"])
        with subprocess.Popen(
            house.place.command("drill", "--json"), env=house.place.environment(), stdout=subprocess.PIPE
        ) as process:
            wait_until_up(house.application / "up")
            process.send_signal(signal.SIGINT)
            document = json.loads(process.stdout.read())
        assert process.returncode == 130
        assert document["outcome"] == "failed"
        assert "interrupted" in document["error"]
