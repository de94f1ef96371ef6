"""The configuration as types: every key, its bounds, its default and the sentence operators read about it.

The descriptions appear in config.example.toml, in the JSON Schema and in the reference. `extra["must"]` is
how an error names what a value has to be; numbers and choices are worded from their bounds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

from scpln_backup.config.checks import parse_listen
from scpln_backup.config.zone import find_zone
from scpln_backup.model import Compression, Preset, Severity, Topic

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo


class Locale(StrEnum):
    """The language of what people read."""

    JA = "ja"
    EN = "en"


AbsolutePath = Annotated[
    str, Meta(pattern="^/.", extra={"must": "an absolute path (the daemon runs in /; ~ is not expanded)"})
]
OptionalPath = Annotated[
    str, Meta(pattern="^(/.|$)", extra={"must": 'an absolute path (~ is not expanded), or "" for none'})
]
SecretFile = Annotated[
    str,
    Meta(
        # Not a bare name: a secret pasted here by mistake would pass for one, and be shown.
        pattern="^(/.+|credential:[A-Za-z0-9_][A-Za-z0-9_.-]{0,254})?$",
        extra={"must": 'an absolute path, credential:NAME for a systemd credential of the unit, or "" for none'},
    ),
]
Name = Annotated[
    str,
    Meta(
        pattern="^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$",
        extra={"must": "1 to 64 letters, digits, _ . or -, and not begin with . or -"},
    ),
]
Cron = Annotated[str, Meta(max_length=200, extra={"must": 'a crontab expression such as "30 2 * * *"'})]
Url = Annotated[str, Meta(pattern="^(https?://.+)?$", extra={"must": 'an http:// or https:// address, or "" for none'})]
Count = Annotated[int, Meta(ge=0, le=100_000)]
Command = Annotated[tuple[str, ...], Meta(extra={"must": "a list of strings: the program and its arguments"})]


class DatabaseConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The live database."""

    name: Annotated[
        Name, Meta(description="Prefix of artifact names (NAME-YYYYmmdd_HHMM.db.gz) and a label of every metric.")
    ] = "scpln"
    path: Annotated[
        AbsolutePath,
        Meta(description="The database file. SCPLN_DB, from the environment or from env_file, wins over it."),
    ] = "/opt/scpln/data/scpln.db"
    env_file: Annotated[
        OptionalPath,
        Meta(
            description="The application's .env: SCPLN_DB and REGISTRY_BACKEND are read from it, the environment "
            'wins. Only the default may be absent, any other file must exist; "" reads none.'
        ),
    ] = "/opt/scpln/.env"


class BackupConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the copy is taken and where it goes."""

    root: Annotated[
        AbsolutePath,
        Meta(description="Folder of the artifacts, one subfolder a year. Staging is in ROOT/.staging."),
    ] = "/var/backups/scpln"
    compression: Annotated[
        Compression,
        Meta(description="Format of new artifacts: gzip (.db.gz, read by gunzip) or zstd (.db.zst, read by unzstd)."),
    ] = Compression.GZIP
    preset: Annotated[
        Preset,
        Meta(description="fast, balanced or small: how much processor time a smaller artifact may cost."),
    ] = Preset.BALANCED
    suspect_shrink_percent: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="A database that shrank by more than this percentage against the recent median is suspect: "
            "its copy is kept, retention stops and somebody is told. 100 switches the check off.",
        ),
    ] = 30
    source_wait_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="Seconds to wait for a lock or a hot journal on the database before the run fails.",
        ),
    ] = 60.0
    writer_block_limit_seconds: Annotated[
        float,
        Meta(
            gt=0,
            le=3_600,
            description="Longest time in seconds that a writer of the database may be held up. Keep it below the "
            "application's busy timeout (SQLite's usual one is 5 seconds).",
        ),
    ] = 4.0
    bandwidth_limit_mib_per_second: Annotated[
        float,
        Meta(
            ge=0,
            le=100_000,
            description="Most MiB a second that are read of the database while no writer waits, for a disk that the "
            "application keeps busy; 0 sets no limit. In WAL mode the -wal file may grow until the copy is made.",
        ),
    ] = 0.0
    workers: Annotated[
        int,
        Meta(
            ge=0, le=256, description="Threads that compress and prove; 0 uses one per processor core, eight at most."
        ),
    ] = 0


class RetentionConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which artifacts are kept. A pinned artifact, and one being read, is never deleted."""

    days: Annotated[
        int,
        Meta(
            ge=0,
            le=36_500,
            description="Artifacts more than this many whole days old may be deleted, as by find -mtime +DAYS.",
        ),
    ] = 30
    keep_last: Annotated[Count, Meta(description="Keep the newest N artifacts, however old.")] = 0
    keep_daily: Annotated[
        Count, Meta(description="Keep the newest artifact of each of the last N days that have one.")
    ] = 0
    keep_weekly: Annotated[
        Count, Meta(description="Keep the newest artifact of each of the last N ISO weeks that have one.")
    ] = 0
    keep_monthly: Annotated[
        Count, Meta(description="Keep the newest artifact of each of the last N months that have one.")
    ] = 0
    keep_yearly: Annotated[
        Count, Meta(description="Keep the newest artifact of each of the last N years that have one.")
    ] = 0
    keep_verified: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000,
            description="Always keep the newest N verified artifacts: the floor that no rule goes below.",
        ),
    ] = 7


class ScheduleConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When things run: five-field crontab expressions (minute hour day month weekday, Sunday is 0 or 7)."""

    timezone: Annotated[
        str,
        Meta(
            description='IANA time zone of schedule and artifact names, such as "Asia/Tokyo"; "" is the host\'s.',
            extra={"must": 'an IANA time zone such as "Asia/Tokyo", or "" for the host\'s'},
        ),
    ] = ""
    backup: Annotated[Cron, Meta(description="When the backup runs.")] = "30 2 * * *"
    drill: Annotated[Cron, Meta(description="When the restore of the newest artifact is rehearsed.")] = "0 4 * * 0"
    review: Annotated[Cron, Meta(description="When the audit log's monthly review is made.")] = "0 9 1 * *"
    catch_up: Annotated[
        bool,
        Meta(description="Whether a slot missed while the daemon was down or the machine slept runs once, late."),
    ] = True
    jitter_seconds: Annotated[
        int,
        Meta(
            ge=0,
            le=3_600,
            description="Spreads the start times of several hosts: each begins up to this many seconds later.",
        ),
    ] = 0
    heartbeat_seconds: Annotated[
        int,
        Meta(
            ge=1,
            le=3_600,
            description="Seconds between two looks at the clock, to notice a slot that passed while the machine slept.",
        ),
    ] = 30


class StateConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the program remembers."""

    directory: Annotated[
        AbsolutePath, Meta(description="Folder of the catalog, the locks and the restore journal; on a local disk.")
    ] = "/var/lib/scpln-backup"


class WebConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The daemon's web server: /metrics, /healthz and the status page."""

    listen: Annotated[
        str,
        Meta(
            description="HOST:PORT to listen on; an IPv6 address in brackets, port 0 for any free one. There is no "
            "password: leave it on loopback or behind a firewall.",
            extra={"must": 'HOST:PORT, such as "127.0.0.1:9817" or "[::1]:9817"'},
        ),
    ] = "127.0.0.1:9817"
    url: Annotated[
        Url,
        Meta(description='Address at which people reach the status page, for a link in messages; "" gives none.'),
    ] = ""
    max_connections: Annotated[
        int, Meta(ge=1, le=65_535, description="Connections served at once; more have to wait.")
    ] = 4096

    @property
    def address(self) -> tuple[str, int]:
        """Host (an IPv6 address without its brackets) and port."""
        return parse_listen(self.listen)


class ServiceConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The application, which a restore stops and starts again."""

    units: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^[A-Za-z0-9:_.@\\][A-Za-z0-9:_.@\\-]*$")], ...],
        Meta(
            description="systemd units that have the database open: stopped in this order, started in reverse.",
            extra={"must": 'a list of systemd unit names such as "scpln-api.service"'},
        ),
    ] = ("scpln-api.service",)
    health_url: Annotated[
        Url,
        Meta(description='Address that answers 2xx once the application works after a restore; "" asks nothing.'),
    ] = "http://127.0.0.1:8000/healthz"
    health_command: Annotated[
        Command,
        Meta(
            description="Command that exits 0 once the application works, asked besides health_url, in / and without "
            "a shell; [] asks nothing."
        ),
    ] = ()
    health_timeout_seconds: Annotated[
        int,
        Meta(
            ge=1,
            le=3_600,
            description="Seconds within which both must be content after a restore; else the old database is put back.",
        ),
    ] = 60
    stop_timeout_seconds: Annotated[
        int,
        Meta(
            ge=1,
            le=3_600,
            description="Seconds a unit may take to stop before the restore is given up. Not less than the unit's own "
            "TimeoutStopSec (systemd's usual one is 90).",
        ),
    ] = 90
    start_timeout_seconds: Annotated[
        int,
        Meta(
            ge=1,
            le=3_600,
            description="Seconds a unit may take to start before the old database is put back. Not less than the "
            "unit's own TimeoutStartSec (systemd's usual one is 90).",
        ),
    ] = 90


class DrillConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rehearsal of a restore into a scratch folder."""

    command: Annotated[
        Command,
        Meta(
            description="Smoke test, run with SCPLN_DB set to the restored copy and without a shell; [] only restores "
            "and checks."
        ),
    ] = ("make", "smoke-test")
    directory: Annotated[AbsolutePath, Meta(description="Folder the smoke test runs in.")] = "/opt/scpln"
    timeout_seconds: Annotated[
        int,
        Meta(
            ge=1,
            le=86_400,
            description="Seconds after which the smoke test is ended and the drill has failed. A backup that is due "
            "in the meantime waits for the drill.",
        ),
    ] = 1800


class RebuildConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rebuilding what a restore could not bring back."""

    command: Annotated[
        Command,
        Meta(description="Rebuild script, run without a shell, with --since YYYY-MM-DD added; [] if there is none."),
    ] = ("python3", "scripts/rebuild_from_artifacts.py")
    directory: Annotated[AbsolutePath, Meta(description="Folder the rebuild script runs in.")] = "/opt/scpln"
    timeout_seconds: Annotated[
        int,
        Meta(
            ge=1,
            le=604_800,
            description="Seconds after which the rebuild script is ended and has failed. The usual 24 hours are the "
            "deadline of an incident.",
        ),
    ] = 86_400


class AuditConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The audit log."""

    log: Annotated[AbsolutePath, Meta(description="File every run, deletion and restore is recorded in.")] = (
        "/var/log/scpln/backup.log"
    )


_TOPICS = (
    "What it is told of: run, overdue, artifact (one found corrupt), drill, restore, incident, review (of a month), "
    "service (the daemon has failed)."
)
_TOPIC_LIST = "a list of some of: " + ", ".join(f'"{topic.value}"' for topic in Topic)
_LEVEL = (
    "Least severity it is told of: info, warning (degraded, suspect, a failed drill) or critical (failed, overdue, "
    "corrupt). It also hears that what it was told of is over."
)


class SlackConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Messages to Slack."""

    token_file: Annotated[
        SecretFile,
        Meta(
            description='File that holds the bot token (xoxb-…), or credential:NAME (LoadCredential= of the unit); "" '
            "sends nothing to Slack."
        ),
    ] = ""
    channel: Annotated[
        str,
        Meta(
            pattern=r"^\S{1,80}$",
            description="Channel, by #name or ID. The bot has to be a member.",
            extra={"must": 'a channel such as "#scpln-ops"'},
        ),
    ] = "#scpln-ops"
    events: Annotated[tuple[Topic, ...], Meta(description=_TOPICS, extra={"must": _TOPIC_LIST})] = tuple(Topic)
    level: Annotated[Severity, Meta(description=_LEVEL)] = Severity.INFO
    api_url: Annotated[Url, Meta(description="Address of Slack's Web API; another one for GovSlack, or a relay.")] = (
        "https://slack.com/api/"
    )


class PushgatewayConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Metrics pushed after every run, for a Prometheus that cannot reach /metrics."""

    url: Annotated[Url, Meta(description='Address of the Pushgateway; "" pushes nothing.')] = ""
    job: Annotated[Name, Meta(description="The job label that the metrics are grouped under.")] = "scpln-backup"


class PagerdutyConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Calling somebody through PagerDuty."""

    routing_key_file: Annotated[
        SecretFile,
        Meta(description='File that holds the Events API v2 routing key, or credential:NAME; "" calls nobody.'),
    ] = ""
    overdue_hours: Annotated[
        int,
        Meta(
            ge=1,
            le=8_760,
            description="Hours without a good backup after which it is overdue: somebody is called, and status and "
            "/healthz are critical.",
        ),
    ] = 24
    events: Annotated[tuple[Topic, ...], Meta(description=_TOPICS, extra={"must": _TOPIC_LIST})] = (
        Topic.RUN,
        Topic.OVERDUE,
        Topic.ARTIFACT,
        Topic.SERVICE,
    )
    level: Annotated[Severity, Meta(description=_LEVEL)] = Severity.CRITICAL
    url: Annotated[
        Url, Meta(description="Address of the Events API; https://events.eu.pagerduty.com for the EU region.")
    ] = "https://events.pagerduty.com"


class JiraConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Follow-up tickets in Jira. Set url, token_file and project, or none of them."""

    url: Annotated[Url, Meta(description='Address of the Jira site; "" makes no tickets.')] = ""
    token_file: Annotated[SecretFile, Meta(description="File that holds the access token, or credential:NAME.")] = ""
    user: Annotated[
        str,
        Meta(
            pattern=r"^\S{0,254}$",
            description='Account of the token, for Jira Cloud: its e-mail address. "" for Data Center, whose tokens '
            "stand alone.",
            extra={"must": "an account without spaces"},
        ),
    ] = ""
    project: Annotated[
        str,
        Meta(
            pattern="^([A-Z][A-Z0-9_]*)?$",
            description="Key of the project that tickets are made in.",
            extra={"must": 'a Jira project key in capitals, such as "OPS"'},
        ),
    ] = ""
    issue_type: Annotated[
        str,
        Meta(min_length=1, max_length=100, description="Type of new tickets.", extra={"must": "a name such as Task"}),
    ] = "Task"
    done_transition: Annotated[
        str,
        Meta(
            max_length=100,
            description='Name of the transition that a ticket gets when what it is about is over, such as "Done"; "" '
            "only comments.",
            extra={"must": 'the name of a transition, or "" for none'},
        ),
    ] = ""
    events: Annotated[tuple[Topic, ...], Meta(description=_TOPICS, extra={"must": _TOPIC_LIST})] = (
        Topic.RUN,
        Topic.OVERDUE,
        Topic.ARTIFACT,
        Topic.DRILL,
        Topic.REVIEW,
        Topic.SERVICE,
    )
    level: Annotated[Severity, Meta(description=_LEVEL)] = Severity.WARNING


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration of one environment."""

    environment: Annotated[
        Name, Meta(description="Name of this environment, such as production: in messages and a label of every metric.")
    ] = "production"
    locale: Annotated[
        Locale, Meta(description="Language of what people read (Slack, Jira, report, status page): ja or en.")
    ] = Locale.JA
    database: DatabaseConfig = DatabaseConfig()
    backup: BackupConfig = BackupConfig()
    retention: RetentionConfig = RetentionConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    state: StateConfig = StateConfig()
    web: WebConfig = WebConfig()
    service: ServiceConfig = ServiceConfig()
    drill: DrillConfig = DrillConfig()
    rebuild: RebuildConfig = RebuildConfig()
    audit: AuditConfig = AuditConfig()
    slack: SlackConfig = SlackConfig()
    pushgateway: PushgatewayConfig = PushgatewayConfig()
    pagerduty: PagerdutyConfig = PagerdutyConfig()
    jira: JiraConfig = JiraConfig()

    @property
    def timezone(self) -> ZoneInfo:
        """The zone of `schedule.timezone`, or the host's. ConfigError where that one cannot be known."""
        return find_zone(self.schedule.timezone)
