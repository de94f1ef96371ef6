"""What the daemon tells the page of itself: from a real state folder, and with runs and drills under way."""

from __future__ import annotations

import os
import threading
from datetime import timedelta

import pytest

from scpln_backup.app import App
from scpln_backup.config.load import load
from scpln_backup.config.schema import Locale
from scpln_backup.errors import BackupError
from scpln_backup.events import Progressed
from scpln_backup.model import Outcome, Stage, Trigger
from scpln_backup.service.facts import ARTIFACTS_ON_PAGE, DRILLS_ON_PAGE, RUNS_ON_PAGE, DaemonFacts
from scpln_backup.service.page.render import render
from scpln_backup.service.runner import IDLE, Runner
from scpln_backup.service.scheduler import Scheduler
from support import page_views as views
from support.markup import Page
from support.place import Place

WAIT = 20


class House:
    """The parts that the facts are of; `held` keeps a run, or a drill, under way until it is set."""

    def __init__(self, folder):
        self.place = Place(folder)
        self.app = App.build(load(self.place.config, {}))
        self.held, self.begun = threading.Event(), threading.Event()
        self.take = self._hold
        self.runner = Runner(self._take, now=self.app.now, changed=lambda: None)
        self.drills = Runner(self._hold, now=self.app.now, changed=lambda: None)
        self.scheduler = Scheduler(
            lambda: self.app, self.runner.request, now=self.app.now, others={"drill": self.drills.request}
        )
        self.facts = DaemonFacts(lambda: self.app, self.runner, self.drills, self.scheduler)

    def _take(self, trigger, cancel):
        self.take(trigger, cancel)

    def _hold(self, trigger, cancel):
        self.begun.set()
        assert self.held.wait(WAIT)

    def close(self):
        self.held.set()
        for runner in (self.runner, self.drills):
            runner.stop()
            assert runner.join(WAIT)

    def past_runs(self, count, every=timedelta(days=1)):
        for back in reversed(range(count)):
            at = self.app.now() - timedelta(minutes=5) - back * every
            number = self.app.catalog.begin_run(Trigger.SCHEDULE, at)
            self.app.catalog.finish_run(views.run(0, id=number, started_at=at, finished_at=at))

    def drill(self, weeks, **changes):
        at = self.app.now() - timedelta(weeks=weeks)
        number = self.app.catalog.begin_drill(Trigger.SCHEDULE, at)
        self.app.catalog.finish_drill(views.drill(0, id=number, started_at=at, finished_at=at, **changes))


@pytest.fixture
def house(tmp_path):
    made = House(tmp_path)
    yield made
    made.close()


def test_nothing_has_happened_yet(house):
    view = house.facts.view()
    known = view.recorded
    assert (view.problem, view.notice, view.backing_up, view.drilling) == (None, None, IDLE, IDLE)
    assert (view.database, view.environment, view.locale) == ("scpln", "test", Locale.EN)
    assert (view.source, view.root) == (str(house.place.source), str(house.place.root))
    for listed in (known.runs, known.month, known.artifacts, known.drills, known.incidents):
        assert list(listed) == []
    assert known.installed_at is not None


def test_a_real_run_is_shown(house):
    house.place.run("backup")
    known = house.facts.view().recorded
    (run,), (artifact,) = known.runs, known.artifacts
    assert run.outcome is Outcome.SUCCESS
    assert run.artifact == artifact.name
    assert list(known.month) == list(known.runs)
    assert known.status.artifacts.count == 1


def test_each_list_is_as_long_as_the_page_shows(house):
    house.past_runs(40)
    house.app.catalog.sync_artifacts([views.artifact(back) for back in range(ARTIFACTS_ON_PAGE + 3)], house.app.now())
    for weeks in reversed(range(DRILLS_ON_PAGE + 2)):
        house.drill(weeks)
    known = house.facts.view().recorded
    assert len(known.runs) == RUNS_ON_PAGE
    assert len(known.month) == 31  # days back
    assert len(known.artifacts) == ARTIFACTS_ON_PAGE
    assert len(known.drills) == DRILLS_ON_PAGE
    starts = [drill.started_at for drill in known.drills]
    assert starts == sorted(starts, reverse=True)


def test_the_newest_runs_are_shown_however_old_they_are(house):
    house.past_runs(3, every=timedelta(days=100))
    known = house.facts.view().recorded
    assert (len(known.runs), len(known.month)) == (3, 1)


def test_a_run_under_way_is_no_failure(house):
    house.past_runs(2)
    number = house.app.catalog.begin_run(Trigger.SIGNAL, house.app.now())
    assert house.facts.view().recorded.runs[0].id == number  # killed: nothing is under way
    house.runner.start()
    house.runner.request(Trigger.SIGNAL)
    assert house.begun.wait(WAIT)
    house.runner.observe(Progressed(stage=Stage.COMPRESS, done=1, total=4))
    view = house.facts.view()
    assert number not in {run.id for run in (*view.recorded.runs, *view.recorded.month)}
    assert len(view.recorded.runs) == 2
    assert (view.backing_up.stage, view.backing_up.percent) == (Stage.COMPRESS, 25)


def test_a_drill_under_way_is_not_over(house):
    house.drill(1)
    house.app.catalog.begin_drill(Trigger.SCHEDULE, house.app.now())
    assert [drill.error for drill in house.facts.view().recorded.drills] == ["interrupted", None]
    with house.app.house.run_lock("a drill"):
        assert [drill.error for drill in house.facts.view().recorded.drills] == [None]
    house.drills.start()
    house.drills.request(Trigger.SCHEDULE)
    assert house.begun.wait(WAIT)
    assert house.facts.view().drilling.trigger is Trigger.SCHEDULE


def test_a_run_that_could_not_begin_is_said_in_the_language_of_the_reader(house):
    done = threading.Event()

    def refuse(trigger, cancel):
        done.set()
        raise BackupError("the disk <is> gone")

    house.take = refuse
    house.runner.start()
    house.runner.request(Trigger.CLI)
    assert done.wait(WAIT)
    house.close()
    health = house.facts.status().health
    assert health.reasons[0] == "the cli run could not begin: the disk <is> gone"
    assert (
        health.why[0].japanese == "バックアップを実行できませんでした: the cli run could not begin: the disk <is> gone"
    )
    text = Page(render(house.facts.view(), Locale.JA)[0].decode()).text
    assert "異常 対応が必要な項目 バックアップを実行できませんでした" in text


def test_open_incidents_and_channels_are_shown(house):
    house.app.catalog.add_incident(views.incident(3))
    house.app.catalog.register_channels(["slack", "audit"])
    known = house.facts.view().recorded
    assert [incident.restore.artifact for incident in known.incidents] == ["scpln-20261122_0230.db.gz"]
    assert [channel.name for channel in known.channels] == ["audit", "slack"]


def test_a_damaged_catalog_is_told_on_the_page(house):
    os.truncate(house.app.catalog.path, 100)
    house.facts.notice = "reload refused"
    view = house.facts.view()
    assert view.recorded is None
    assert view.notice == "reload refused"
    assert str(house.app.catalog.path) in view.problem
    assert "\n" not in view.problem
    assert view.problem in Page(render(view, Locale.EN)[0].decode()).text
