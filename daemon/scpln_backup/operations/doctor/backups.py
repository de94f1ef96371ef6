"""What there is already: the last run, the artifacts, what retention makes of them, the schedule of the next ones."""

from __future__ import annotations

import os
import re
from collections import Counter
from datetime import timedelta
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from scpln_backup.model import Outcome, State
from scpln_backup.operations import sweep
from scpln_backup.operations.doctor.account import acting_as, may
from scpln_backup.operations.doctor.finding import Verdict, bad, doubtful, good, together
from scpln_backup.operations.restore import journal
from scpln_backup.rules.health import overdue_at
from scpln_backup.support.locks import holder
from scpln_backup.support.text import human_bytes, human_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from scpln_backup.config.schema import RetentionConfig
    from scpln_backup.model import Artifact, RunRecord
    from scpln_backup.operations.doctor.patient import Patient

_MINUTE = "%Y-%m-%d %H:%M"
_SLOTS = 400
_SHORTEST_HISTORY = 2
_OLD_SCRIPT = "backup_database.sh"
_CRONTABS = (Path("/etc/crontab"), Path("/etc/cron.d"), Path("/var/spool/cron/crontabs"))
# cron(8) passes over files with other names, such as those that a package manager has put aside.
_CRON_NAME = re.compile("[A-Za-z0-9_-]+")


def last_run(patient: Patient) -> Verdict | None:
    if patient.catalog_problem is not None:
        return None
    catalog = patient.house.catalog
    under_way = catalog.unfinished() if holder(patient.house.run_lock("").path) is not None else None
    return judge_run(catalog.last_finished(under_way.id if under_way is not None else None), patient.house.zone)


def judge_run(run: RunRecord | None, zone: ZoneInfo) -> Verdict:
    if run is None:
        return doubtful("no run yet", "try one by day: scpln-backup backup")
    at = f"{run.started_at.astimezone(zone):{_MINUTE}}"
    said = run.error or "it did not say why, see: journalctl -u scpln-backup"
    if run.interrupted and run.outcome is Outcome.FAILED:
        return bad(f"the run of {at} was broken off", "scpln-backup backup")
    if run.outcome is Outcome.FAILED:
        return bad(f"the run of {at} failed: {said}", "mend that, then: scpln-backup backup")
    if run.outcome is Outcome.SUSPECT:
        accept = f"scpln-backup verify {run.artifact} --accept-shrink"
        return doubtful(f"the run of {at} is suspect: {said}", f"find out why; if it was meant: {accept}")
    if run.outcome is Outcome.DEGRADED:
        return doubtful(
            f"the run of {at} made a good artifact, and a later step failed: {said}",
            "mend that, then: scpln-backup backup",
        )
    return good(f"{at}, {run.outcome} in {human_duration(run.duration_seconds or 0)}")


def artifacts(patient: Patient) -> Verdict | None:
    """The newest proven one and its age, the state of the rest, and whether the daemon can read and delete them."""
    found = patient.artifacts
    if found is None:
        return None
    if not found:
        return doubtful(f"none yet under {patient.house.root}", "try by day: scpln-backup backup")
    newest = next((artifact for artifact in found if artifact.state is State.VERIFIED), None)
    hours = patient.config.pagerduty.overdue_hours
    return together(
        [
            judge_newest(newest, patient.now, hours, patient.house.zone),
            judge_states(Counter(artifact.state for artifact in found), sum(artifact.bytes for artifact in found)),
            *_rights(found, patient),
        ]
    )


def judge_newest(newest: Artifact | None, now: datetime, hours: int, zone: ZoneInfo) -> Verdict:
    if newest is None:
        return bad("none is verified, so nothing is known to be restorable", "scpln-backup verify --all")
    age = human_duration(now.timestamp() - newest.taken_at.timestamp())
    if now.timestamp() > overdue_at(newest.taken_at, hours, zone).timestamp():
        return bad(
            f"the newest verified one, {newest.name}, is {age} old: more than {hours} hours",
            "see why in `journalctl -u scpln-backup`, then: scpln-backup backup",
        )
    return good(f"the newest verified one, {newest.name}, is {age} old")


def judge_states(states: Counter[State], total: int) -> Verdict:
    count = sum(states.values())
    if states[State.CORRUPT]:
        return bad(
            f"{states[State.CORRUPT]} of {count} corrupt",
            "see scpln-backup list, move it away, then: scpln-backup verify",
        )
    if states[State.UNVERIFIED]:
        return doubtful(f"{states[State.UNVERIFIED]} of {count} never verified", "scpln-backup verify --all")
    return good(f"{count} in all, {human_bytes(total)}")


def _rights(found: Sequence[Artifact], patient: Patient) -> list[Verdict]:
    user, paths = patient.user, [Path(artifact.path) for artifact in found]
    with acting_as(user):
        unreadable = [path for path in paths if not may(path, os.R_OK)]
        closed = sorted({path.parent for path in paths if not may(path.parent, os.W_OK | os.X_OK)})
    advice = f"chown -R {user}: {patient.house.root}"
    verdicts = []
    if unreadable:
        verdicts.append(doubtful(f"{user} cannot read {len(unreadable)} of them, such as {unreadable[0].name}", advice))
    if closed:
        verdicts.append(doubtful(f"{user} cannot delete what is in {', '.join(map(str, closed))}", advice))
    return verdicts


def retention(patient: Patient) -> Verdict | None:
    """Rules that keep too little, and whether anything is swept at all."""
    if patient.catalog_problem is not None:
        return None
    slots = patient.schedules["backup"].after(patient.now)
    interval = max((_seconds(pair) for pair in pairwise(islice(slots, _SLOTS))), default=0.0)
    frozen = sweep.frozen_because(patient.house, patient.house.catalog.last_finished())
    verdicts = [judge_retention(patient.config.retention, interval)]
    if frozen is not None:
        verdicts.append(doubtful(f"nothing is swept: {frozen}", "see: scpln-backup sweep --dry-run --explain"))
    return together(verdicts)


def judge_retention(config: RetentionConfig, interval_seconds: float) -> Verdict:
    """`interval_seconds` is the longest time between two runs of the schedule."""
    floor = max(config.keep_verified, config.keep_last)
    if config.keep_verified == 0:
        return doubtful(
            "keep_verified = 0: should backups stop, the last good one goes when its time is over",
            "set [retention] keep_verified to 7",
        )
    by_age = int(config.days * 86_400 / interval_seconds) if interval_seconds else floor
    if max(floor, by_age) < _SHORTEST_HISTORY:
        return doubtful(
            f"days = {config.days} keeps only the newest artifact: damage that is found late is in it too",
            "raise [retention] days or keep_verified",
        )
    return good(f"{config.days} days, and the newest {floor} verified ones however old")


def _seconds(pair: tuple[datetime, datetime]) -> float:
    return pair[1].timestamp() - pair[0].timestamp()


def schedule(patient: Patient) -> Verdict:
    slots = list(islice(patient.schedules["backup"].after(patient.now), _SLOTS))
    return judge_schedule(slots, patient.config.pagerduty.overdue_hours, patient.house.zone)


def judge_schedule(slots: Sequence[datetime], hours: int, zone: ZoneInfo) -> Verdict:
    """The coming runs must not be further apart than the alarm allows."""
    late = next((pair for pair in pairwise(slots) if _overdue_between(pair, hours, zone)), None)
    if late is not None:
        return doubtful(
            f"after the run of {late[0].astimezone(zone):{_MINUTE}} there is none for "
            f"{human_duration(_seconds(late))}, and after {hours} hours it counts as overdue",
            "raise [pagerduty] overdue_hours, or have [schedule] backup come more often",
        )
    return good(f"next run {slots[0].astimezone(zone):{_MINUTE} %Z}")


def _overdue_between(pair: tuple[datetime, datetime], hours: int, zone: ZoneInfo) -> bool:
    # A run takes its time; the health rules wait for one that began in time.
    return pair[1] - timedelta(seconds=1) > overdue_at(pair[0], hours, zone)


def unfinished_restore(patient: Patient) -> Verdict:
    """A restore that was broken off. BackupError: its journal cannot be read."""
    found = journal.load(patient.house)
    if found is None:
        return good("none is under way")
    if holder(patient.house.run_lock("").path) is not None:
        return good("one is under way at this moment")
    at = f"{found.record.started_at.astimezone(patient.house.zone):{_MINUTE}}"
    return bad(f"the restore of {at} was broken off", "scpln-backup restore --resume, or: scpln-backup restore --abort")


def old_cron_job(patient: Patient) -> Verdict:
    """The procedure that this program replaces, still at work."""
    return judge_cron(*crontabs(_CRONTABS))


def crontabs(places: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Crontabs that call the old script, and those that this user may not read."""
    calling, closed = [], []
    for place in places:
        try:
            files = [path for path in sorted(place.iterdir()) if _CRON_NAME.fullmatch(path.name)]
        except NotADirectoryError:
            files = [place]
        except FileNotFoundError:
            continue
        except PermissionError:
            closed.append(place)
            continue
        for file in files:
            try:
                lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            except PermissionError:
                closed.append(file)
                continue
            if any(_OLD_SCRIPT in line and not line.lstrip().startswith("#") for line in lines):
                calling.append(file)
    return calling, closed


def judge_cron(calling: Sequence[Path], closed: Sequence[Path]) -> Verdict:
    if calling:
        named = ", ".join(map(str, calling))
        return doubtful(
            f"{named}: the old procedure still runs beside this one, and deletes by its own rules",
            f"remove the line with {_OLD_SCRIPT}",
        )
    unread = f" ({', '.join(map(str, closed))} can be read by root only)" if closed else ""
    return good(f"no crontab calls {_OLD_SCRIPT}{unread}")
