"""What messages say, in English."""

from __future__ import annotations

from scpln_backup.model import RestoreOutcome, Trigger
from scpln_backup.observers.wording.texts import (
    ArtifactTexts,
    DigestTexts,
    DrillTexts,
    IncidentTexts,
    Labels,
    RestoreTexts,
    RunTexts,
    ServiceTexts,
    Texts,
)
from scpln_backup.rules.report import Part

_LABELS = Labels(
    began="Began",
    size="Size",
    duration="Duration",
    writers="Writers waited",
    unchanged="Database unchanged since",
    trigger="Asked for by",
    next_run="Next run",
    page="Status page",
    artifact="Backup",
    taken="Taken",
    target="Database",
    user="By",
    restore_time="Restore time",
    smoke_test="Smoke test",
    output="Its output",
    set_aside="Old database kept in",
    opened="Opened",
    due="Report due",
    closed="Closed",
    whole="Whole text",
    host="Host",
    unit="Unit",
    version="Version",
)

_RUN = RunTexts(
    what_success="backup done, {size} in {duration}",
    what_recovered="backups work again, {size} in {duration}",
    what_degraded="backup made, but something failed after it",
    what_suspect="backup suspect, the database has shrunk",
    what_failed="backup failed: {error}",
    what_interrupted="backup interrupted",
    what_overdue="no good backup for more than {hours} hours",
    failures_over="From {since} on, {runs} had gone wrong. This one is good.",
    gap_over="There is a good backup again.",
    gap_over_since="There is a good backup again; the one before it is of {since}.",
    degraded="The backup is good: it has been proven and can be restored. What failed after it: {error}",
    degraded_do="Mend that, no hurry. It is over with the next run that goes through: `scpln-backup backup --wait`.",
    shrank="What fell: {error}",
    suspect="The copy is sound and is kept, but does not count as verified, and nothing is deleted until you decide.",
    suspect_meant=(
        "Was data removed on purpose? Then `scpln-backup verify {name} --accept-shrink`, and `scpln-backup backup "
        "--wait` after it."
    ),
    suspect_not_meant="Otherwise data is missing from the live database: find out why, before the next run.",
    suspect_restore=(
        "Otherwise data is missing from the live database. Keep the last good backup, `scpln-backup pin {good}`, and "
        "restore it: `scpln-backup restore {good}`."
    ),
    in_a_row="{runs} in a row have gone wrong, since {since}.",
    failed_do=(
        "See why: `journalctl -u scpln-backup -e`. When it is mended: `scpln-backup backup --wait`. Older backups are "
        "not deleted until a run is good again."
    ),
    interrupted="The run was stopped or killed before its end. Nothing half-made was kept; older backups are there.",
    interrupted_do=(
        "A scheduled run is taken again when the service starts. To have one now: `scpln-backup backup --wait`."
    ),
    overdue="The last good run ended at {since}; the next good one was due by {deadline}.",
    overdue_never="Not one run has been good since the installation at {since}; the first was due by {deadline}.",
    overdue_do=(
        "Does the service run? `systemctl status scpln-backup`. See why in `scpln-backup status` and `journalctl -u "
        "scpln-backup -e`, then `scpln-backup backup --wait`."
    ),
)

_SERVICE = ServiceTexts(
    what_failed="the backup service has failed",
    what_runs_again="the backup service runs again",
    what_started="the backup service has started",
    failed="systemd has given up starting it, so there will be no backup until somebody does.",
    failed_do=(
        "See why: `journalctl -u {unit} -e`. When it is mended: `systemctl reset-failed {unit}`, then `systemctl start "
        "{unit}`."
    ),
    runs_again="A backup that it missed is made up for now, unless `[schedule] catch_up` is off.",
)

_ARTIFACT = ArtifactTexts(
    what_corrupt="backup corrupt, {name}",
    what_sound="backup sound, {name}",
    what_deleted="backup deleted, {name}",
    corrupt_do=(
        "Take a new backup now: `scpln-backup backup --wait`. Then move this one and the files named after it to "
        "another folder, and run `scpln-backup verify`."
    ),
    corrupt_more="Are there more? `scpln-backup verify --all`. Then suspect the disk: `journalctl -k`.",
    sound="It was read in full and is what it should be.",
    deleted="Why: {reason}",
    deleted_over="It had been reported as corrupt on {since}; with it gone, that is over.",
)

_DRILL = DrillTexts(
    what_passed="drill passed, a restore takes {duration}",
    what_recovered="drill passed again, a restore takes {duration}",
    what_degraded="drill passed, but something failed beside it",
    what_failed="drill failed: {error}",
    passed="The backup was restored into a scratch folder and checked. The live database was not touched.",
    failed="The live database was not touched. But until a drill passes, nothing shows that a restore would work.",
    failed_do="Mend it, then `scpln-backup drill`.",
    smoke_passed="passed",
    smoke_failed="exit code {code}",
    smoke_none="not run",
)

_RESTORE = RestoreTexts(
    what_started="restore of the live database has begun",
    what_ended={
        RestoreOutcome.SUCCESS: "database restored",
        RestoreOutcome.FAILED: "restore failed",
        RestoreOutcome.ROLLED_BACK: "restore rolled back, the old database is in place",
        RestoreOutcome.ABORTED: "restore aborted, the old database is in place",
    },
    started="The application is stopped and its database replaced. A message follows when that has ended.",
    broken_off=(
        "If none does: `scpln-backup restore --resume` goes on with it, `scpln-backup restore --abort` goes back."
    ),
    rebuild="Rebuild what is missing: `scpln-backup rebuild --since {since}`.",
    old_in_place=(
        "It is as it was before. `scpln-backup restore --dry-run` shows what another attempt would do and what is in "
        "its way."
    ),
    look_at_error=(
        "The error says what the database is now. See the steps in `journalctl -u scpln-backup -e`; "
        "`scpln-backup restore --abort` puts the old database back, where that has not been done."
    ),
)

_INCIDENT = IncidentTexts(
    what_opened="incident {id} opened, its report is due {due}",
    what_overdue="incident {id} is past its deadline",
    what_closed="incident {id} closed",
    opened="A restore opens an incident. Within 24 hours what is missing is rebuilt, and the report is complete.",
    opened_do="What is known, and what to do next: `scpln-backup incident show {id}`.",
    overdue="Its report was due {due}. Still missing: {parts}.",
    overdue_do=(
        "Write it, `scpln-backup incident note {id} --scope TEXT --prevention TEXT`, then `scpln-backup incident close "
        "{id}`."
    ),
    closed="Closed {at}, in time. The report: recovery time, scope and prevention.",
    closed_late="Closed {at}, {late} after its deadline. The report: recovery time, scope and prevention.",
    parts={Part.SCOPE: "scope", Part.PREVENTION: "prevention"},
)

_DIGEST = DigestTexts(
    what="{count} messages since {since}",
    intro="They could not be delivered one by one in their time, so here they are in one.",
    grave="Something went wrong in {count} of them; these come first.",
    line="{at} {what}",
    whole="`scpln-backup audit show`",
)

ENGLISH = Texts(
    headline="{database} ({environment}): {what}",
    error="Error: {error}",
    no_error="it did not say why, see the log",
    separator=", ",
    within=" ({})",
    units={"ms": "ms", "s": "s", "min": "min", "h": "h", "d": "d"},
    unit_space=" ",
    unit_gap=" ",
    against="{change} % against the last {count}",
    against_one="{change} % against the last one",
    one_run="1 run",
    many_runs="{count} runs",
    from_database="from {size}",
    at_most="at most {duration}",
    none_planned="none planned: `scpln-backup status`",
    last_good="Last good backup: {name}, of {at}, {age} old.",
    no_good="No verified backup is known: `scpln-backup list`.",
    triggers={
        Trigger.SCHEDULE: "schedule",
        Trigger.CATCH_UP: "catch-up",
        Trigger.SIGNAL: "signal",
        Trigger.CLI: "command line",
    },
    month="{year}-{month}",
    review_what="review of {month}",
    review="What the backups did in {month}. Please read it, and follow up what went wrong.",
    review_unticketed="Failed runs without a ticket: {count}, of {runs}.",
    test_what="test message",
    test="Asked for by {user}. Nothing is wrong: messages about this database arrive here.",
    test_over="This was the end of a test. Nothing is wrong.",
    other_what="{kind}",
    shortened="Shortened here, as it is longer than one message may be. The whole of it is where “Whole text” says.",
    labels=_LABELS,
    run=_RUN,
    service=_SERVICE,
    artifact=_ARTIFACT,
    drill=_DRILL,
    restore=_RESTORE,
    incident=_INCIDENT,
    digest=_DIGEST,
)
