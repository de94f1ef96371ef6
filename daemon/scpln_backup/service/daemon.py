"""The daemon: startup, main loop, shutdown."""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector

from scpln_backup import __version__
from scpln_backup.errors import BackupError
from scpln_backup.events import Announcer, ConfigReloaded, DaemonStarted, DaemonStopped
from scpln_backup.model import Trigger
from scpln_backup.observers.log import log_event
from scpln_backup.observers.metrics import BackupCollector
from scpln_backup.operations.house import DAEMON
from scpln_backup.records import lastgood
from scpln_backup.service.dispatcher import Dispatcher
from scpln_backup.service.facts import DaemonFacts
from scpln_backup.service.notify import Notifier, watchdog_interval
from scpln_backup.service.reload import keep_until_restart
from scpln_backup.service.runner import Runner
from scpln_backup.service.scheduler import DRILL, JOB, REVIEW, Scheduler
from scpln_backup.service.signals import BACKUP_NOW, RELOAD, STOP, Signals, capture
from scpln_backup.service.site import Site
from scpln_backup.service.watchdog import Watchdog
from scpln_backup.service.web import WebServer
from scpln_backup.support.locks import holder

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from scpln_backup.app import App
    from scpln_backup.config.schema import Config

log = logging.getLogger(__name__)

# While a run winds up systemd is asked again and again for this much more time, up to the limit: a run that
# does not heed the stop by then hangs, and systemd may kill it.
WIND_UP_STEP_SECONDS = 5.0
WIND_UP_GRACE_SECONDS = 30.0
WIND_UP_LIMIT_SECONDS = 300.0


def serve(
    load: Callable[[], Config],
    build: Callable[[Config, Announcer], App],
    *,
    environ: Mapping[str, str] = os.environ,
    backup_at_start: bool = False,
    show_address: bool | None = None,
) -> None:
    """Runs until SIGTERM or SIGINT. Only in the main thread.

    `load` reads the configuration and is asked again at SIGHUP. `show_address` prints the page's address to
    stdout (None: when that is a terminal). LockHeldError: another daemon, or a backup from the command line,
    works with this state folder; any other BackupError: it could not start.
    """
    announce = Announcer(log_event)
    app = build(load(), announce)
    with app.daemon_lock, capture() as signals:
        daemon = Daemon(app, load=load, build=build, signals=signals, environ=environ)
        try:
            daemon.start()
            if backup_at_start:
                daemon.runner.request(Trigger.CLI)
            if show_address or (show_address is None and sys.stdout.isatty()):
                sys.stdout.write(f"Status page: {daemon.web.url}\n")
                sys.stdout.flush()
            daemon.loop()
        finally:
            daemon.stop()


class Daemon:
    """The parts of the running service, and how they are started, driven and stopped."""

    def __init__(
        self,
        app: App,
        *,
        load: Callable[[], Config],
        build: Callable[[Config, Announcer], App],
        signals: Signals,
        environ: Mapping[str, str],
    ) -> None:
        self._app = app
        self._load = load
        self._build = build
        self._signals = signals
        self.runner = Runner(self._back_up, now=self._now, changed=signals.wake)
        self.drills = Runner(self._rehearse, now=self._now, changed=signals.wake)
        self.reviews = Runner(self._review, now=self._now, changed=signals.wake)
        self._runners = (self.runner, self.drills, self.reviews)
        self.scheduler = Scheduler(
            lambda: self._app,
            self.runner.request,
            now=self._now,
            others={DRILL: self.drills.request, REVIEW: self.reviews.request},
        )
        self.dispatcher = Dispatcher(lambda: self._app, now=self._now, running_since=lambda: self.runner.running_since)
        self.facts = DaemonFacts(lambda: self._app, self.runner, self.drills, self.scheduler)
        self.web = self._make_web()
        self._notifier = Notifier(environ)
        self._watchdog = self._make_watchdog(environ)
        self._started = False

    def start(self) -> None:
        """Returns once the work can be done, and says so to systemd."""
        self._app.announce.subscribe(self.runner.observe)
        self._app.kept = self.dispatcher.wake
        self._note_start()
        self.web.start()
        self.dispatcher.start()
        for runner in self._runners:
            runner.start()
        self.scheduler.start()
        config = self._app.config
        log.info(
            "backing up %s to %s; next run %s; page %s",
            config.database.path,
            config.backup.root,
            self._app.schedules[JOB].next_after(self._now()),
            self.web.url,
        )
        self._started = True
        self._notifier.ready()

    def _note_start(self) -> None:
        """From now on a daemon that does not run is missed. A full disk must not keep this one from running."""
        try:
            self._app.catalog.set_slot(DAEMON, self._now())
            if holder(self._app.house.run_lock("").path) is None:
                self._app.catalog.tell_broken_off_runs(self._now())
                self._app.catalog.tell_broken_off_drills(self._now())
            lastgood.remember(self._app.config)
        except BackupError as error:
            log.warning("the start could not be noted: %s", error)
        self._app.announce(DaemonStarted(version=__version__))

    def loop(self) -> None:
        """Acts on signals and gives signs of life until it is time to stop."""
        arrived = frozenset[object]()
        while not arrived & STOP:
            if RELOAD in arrived:
                self._reload()
            if BACKUP_NOW in arrived:
                self.runner.request(Trigger.SIGNAL)
            arrived = self._signals.wait(self._look_after())
        log.info("stopping")

    def stop(self) -> None:
        """Gives up the run under way at its next safe point and ends every thread; safe after a failed start."""
        self._notifier.stopping()
        self.scheduler.stop()
        for runner in self._runners:
            runner.stop()
        for runner in self._runners:
            self._wait_for(runner)
        if self._started:
            self._app.announce(DaemonStopped())
        self.dispatcher.stop()
        self.web.stop()
        self._app.announce.unsubscribe(self.runner.observe)
        self._notifier.close()

    def _wait_for(self, runner: Runner) -> None:
        deadline = time.monotonic() + WIND_UP_LIMIT_SECONDS
        while not runner.join(timeout=WIND_UP_STEP_SECONDS):
            if time.monotonic() > deadline:
                log.error("the run did not stop within %d s; leaving it behind", WIND_UP_LIMIT_SECONDS)
                return
            self._notifier.extend_timeout(WIND_UP_GRACE_SECONDS)

    def _look_after(self) -> float:
        """What is to be done at every turn of the loop; seconds until the next one is needed."""
        self.scheduler.watch_clock()
        waits = [float(self._app.config.schedule.heartbeat_seconds)]
        if self._notifier.connected:
            waits.append(self._notifier.status(self.facts.status_line()) or waits[0])
        if self._watchdog is not None:
            waits.append(self._watchdog.look(time.monotonic()))
        return min(waits)

    def _reload(self) -> None:
        self._notifier.reloading()
        try:
            config, held_back = keep_until_restart(self._app.config, self._load())
            app = self._build(config, self._app.announce)
        except BackupError as error:
            log.error("reload refused, the old configuration stays in force: %s", error)  # noqa: TRY400 - an expected failure: one line
            self.facts.notice = f"reload refused, the old configuration stays in force: {error}"
            self._app.announce(ConfigReloaded(problem=str(error)))
        else:
            self._take_over(app)
            self.facts.notice = None
            self.scheduler.reload()
            log.info("configuration reloaded; next run %s", app.schedules[JOB].next_after(self._now()))
            for name in held_back:
                log.warning("%s has changed; the old value stays until: systemctl restart", name)
        self._notifier.ready()

    def _take_over(self, app: App) -> None:
        """Work with the new app from now on; the run under way keeps the one it began with."""
        app.succeed(self._app)
        self._app = app
        app.kept = self.dispatcher.wake
        try:
            for name in app.channel_names:
                app.catalog.retry_now(name)  # what kept it from getting through may be mended
        except BackupError as error:
            log.warning("%s", error)
        self.dispatcher.forgive()
        lastgood.remember(app.config)
        app.announce(ConfigReloaded())

    def _back_up(self, trigger: Trigger, cancel: threading.Event) -> None:
        self._app.backup(trigger, cancel)

    def _rehearse(self, trigger: Trigger, cancel: threading.Event) -> None:
        self._app.drill(trigger, cancel)

    def _review(self, _trigger: Trigger, _cancel: threading.Event) -> None:
        made = self._app.review()
        log.info("the review of %s is in %s", made.month, made.path)

    def _now(self) -> datetime:
        return self._app.now()

    def _make_web(self) -> WebServer:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(BackupCollector(self.facts.live))
        site = Site(status=self.facts.status, view=self.facts.view, registry=registry)
        host, port = self._app.config.web.address
        return WebServer(site, host=host, port=port, max_connections=self._app.config.web.max_connections)

    def _make_watchdog(self, environ: Mapping[str, str]) -> Watchdog | None:
        interval = watchdog_interval(environ, os.getpid())
        if interval is None:
            return None
        return Watchdog(
            interval,
            scheduler_alive=lambda: self.scheduler.alive,
            web_answers=self.web.answers,
            give_sign=self._notifier.alive,
            started=time.monotonic(),
        )
