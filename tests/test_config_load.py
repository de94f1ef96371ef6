"""Loading: what is refused and how it is said, and which of file, .env and environment wins."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from importlib import resources
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from scpln_backup.config import zone
from scpln_backup.config.load import Source, find_config, load, load_with_origins
from scpln_backup.config.schema import Config, Locale, Preset
from scpln_backup.errors import ConfigError
from scpln_backup.model import Compression


@pytest.fixture
def refusal(tmp_path):
    """The lines that a configuration is refused with, without the file's name before each."""

    def lines(toml: str, **environ: str) -> list[str]:
        path = tmp_path / "backup.toml"
        path.write_text(toml, encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            load(path, environ)
        found = str(caught.value).splitlines()
        assert all(line.startswith(f"{path}: ") for line in found)
        return [line.removeprefix(f"{path}: ") for line in found]

    return lines


@pytest.fixture
def app(tmp_path):
    """Writes the application's .env and a configuration that names it, and gives the configuration's path."""

    def write(env: str, more: str = "") -> Path:
        folder = tmp_path / "opt"
        folder.mkdir(exist_ok=True)
        (folder / ".env").write_text(env, encoding="utf-8")
        path = tmp_path / "backup.toml"
        path.write_text(f'[database]\nenv_file = "{folder / ".env"}"\n{more}', encoding="utf-8")
        return path

    return write


def test_values_of_the_file_are_typed(tmp_path):
    path = tmp_path / "staging.toml"
    path.write_text(
        """
        environment = "staging"
        locale = "en"
        [database]
        env_file = ""
        path = "/srv/db"
        [backup]
        compression = "zstd"
        preset = "small"
        source_wait_seconds = 5
        [schedule]
        timezone = "Europe/Berlin"
        [web]
        listen = "[::1]:0"
        [service]
        units = ["a.service", "scpln@staging.service"]
        """,
        encoding="utf-8",
    )
    config = load(path, {})
    assert config.environment == "staging"
    assert config.locale is Locale.EN
    assert config.backup.compression is Compression.ZSTD
    assert config.backup.preset is Preset.SMALL
    assert config.backup.source_wait_seconds == 5.0
    assert config.timezone == ZoneInfo("Europe/Berlin")
    assert config.web.address == ("::1", 0)
    assert config.service.units == ("a.service", "scpln@staging.service")
    assert config.database.path == "/srv/db"
    assert config.retention.days == 30


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        ('[backup]\nrot = "/x"', '[backup] rot: unknown key; did you mean "root"?'),
        ('enviroment = "x"', 'enviroment: unknown key; did you mean "environment"?'),
        ("[retentoin]\ndays = 3", "[retentoin]: unknown section; did you mean [retention]?"),
        ("[zzz]", "[zzz]: unknown section"),
        ('"backup.root" = "/x"', '"backup.root": unknown key'),
        (
            '[state]\n"a\\nb" = "/x"',
            '[state] "a\\nb": unknown key; [state] has directory',
        ),
        ("[backup]\ndays = 3", "[backup] days: unknown key; days belongs in [retention]"),
        (
            '[database]\nlocale = "ja"',
            "[database] locale: unknown key; locale belongs at the top, before the first section",
        ),
        ("[state]\nzzz = 3", "[state] zzz: unknown key; [state] has directory"),
        ('backup = "x"', "backup: must be a section, [backup], that stands once"),
        ('[[slack]]\nchannel = "#x"', "slack: must be a section, [slack], that stands once"),
        ("[retention]\ndays = -1", "[retention] days = -1: must be a whole number from 0 to 36500"),
        ("[retention]\ndays = true", "[retention] days = true: must be a whole number from 0 to 36500"),
        ('[retention]\ndays = "30"', '[retention] days = "30": must be a whole number from 0 to 36500'),
        ("[retention]\nkeep_verified = -1", "[retention] keep_verified = -1: must be a whole number from 0 to 100000"),
        (
            "[backup]\nwriter_block_limit_seconds = 0",
            "[backup] writer_block_limit_seconds = 0: must be a number above 0 and up to 3600",
        ),
        (
            "[backup]\nsource_wait_seconds = nan",
            "[backup] source_wait_seconds = NaN: must be a number from 0 to 86400",
        ),
        ("[schedule]\ncatch_up = 1", "[schedule] catch_up = 1: must be true or false"),
        (
            '[backup]\ncompression = "gz"',
            '[backup] compression = "gz": must be one of "gzip", "zstd"; did you mean "gzip"?',
        ),
        ('locale = "jp"', 'locale = "jp": must be one of "ja", "en"'),
        (
            '[backup]\nroot = "backups"',
            '[backup] root = "backups": must be an absolute path (the daemon runs in /; ~ is not expanded)',
        ),
        (
            '[state]\ndirectory = ""',
            '[state] directory = "": must be an absolute path (the daemon runs in /; ~ is not expanded)',
        ),
        (
            '[audit]\nlog = "~/backup.log"',
            '[audit] log = "~/backup.log": must be an absolute path (the daemon runs in /; ~ is not expanded)',
        ),
        (
            '[database]\npath = "data/scpln.db"',
            '[database] path = "data/scpln.db": must be an absolute path (the daemon runs in /; ~ is not expanded)',
        ),
        (
            '[backup]\nroot = "/a\\nb"',
            '[backup] root = "/a\\nb": must not contain control characters, nor bytes that are not UTF-8',
        ),
        (
            '[database]\nname = "a/b"',
            '[database] name = "a/b": must be 1 to 64 letters, digits, _ . or -, and not begin with . or -',
        ),
        (
            '[drill]\ncommand = "make"',
            '[drill] command = "make": must be a list of strings: the program and its arguments',
        ),
        ('[drill]\ncommand = [""]', '[drill] command = [""]: must begin with the name of a program'),
        (
            '[service]\nunits = ["--now"]',
            '[service] units = ["--now"]: must be a list of systemd unit names such as "scpln-api.service"',
        ),
        (
            '[schedule]\ntimezone = "Asia/Tokio"',
            '[schedule] timezone = "Asia/Tokio": must be an IANA time zone; did you mean "Asia/Tokyo"?',
        ),
        (
            '[schedule]\ntimezone = "asia/tokyo"',
            '[schedule] timezone = "asia/tokyo": must be an IANA time zone; did you mean "Asia/Tokyo"?',
        ),
        (
            '[schedule]\ntimezone = "../../etc/passwd"',
            '[schedule] timezone = "../../etc/passwd": must be an IANA time zone such as "Asia/Tokyo"',
        ),
        (
            '[schedule]\nbackup = "@daily"',
            '[schedule] backup = "@daily": must have five fields (minute hour day month weekday, such as "30 2 * * *"), not 1',
        ),
        (
            '[schedule]\ndrill = "0 0 30 2 * *"',
            '[schedule] drill = "0 0 30 2 * *": must have five fields (minute hour day month weekday, such as "30 2 * * *"), not 6',
        ),
        (
            '[schedule]\nreview = "0 25 * * *"',
            '[schedule] review = "0 25 * * *": must be a crontab expression: bad hour',
        ),
        (
            '[schedule]\nbackup = "0 0 30 2 *"',
            '[schedule] backup = "0 0 30 2 *": must be a crontab expression: bad day-of-month',
        ),
        ("[web]\nlisten = 9817", '[web] listen = 9817: must be HOST:PORT, such as "127.0.0.1:9817" or "[::1]:9817"'),
        ('[web]\nlisten = "localhost"', '[web] listen = "localhost": must be HOST:PORT with a port from 0 to 65535'),
        ('[web]\nlisten = "a:65536"', '[web] listen = "a:65536": must be HOST:PORT with a port from 0 to 65535'),
        (
            '[web]\nlisten = ":80"',
            '[web] listen = ":80": must name a host; "0.0.0.0:80" or "[::]:80" listens on every interface',
        ),
        (
            '[web]\nlisten = "::1:80"',
            '[web] listen = "::1:80": must have an IPv6 address in brackets, such as "[::1]:80"',
        ),
        (
            '[web]\nlisten = "10.0.0.256:80"',
            "[web] listen = \"10.0.0.256:80\": must have a valid address: Octet 256 (> 255) not permitted in '10.0.0.256'",
        ),
        (
            '[service]\nhealth_url = "localhost:8000"',
            '[service] health_url: must be an http:// or https:// address, or "" for none',
        ),
        ('[slack]\nchannel = ""', '[slack] channel = "": must be a channel such as "#scpln-ops"'),
        (
            "[retention]\ndays = 2025-10-05",
            '[retention] days = "2025-10-05": must be a whole number from 0 to 36500',
        ),
    ],
)
def test_a_mistake_is_named_by_its_key_value_and_reason(refusal, toml, line):
    assert refusal(toml) == [line]


def test_every_mistake_is_reported_at_once_a_line_each(refusal):
    lines = refusal('[backup]\nrot = "/x"\ncompression = 3\n[web]\nlisten = "x"\n[jira]\nurl = "https://jira.example"')
    assert lines == [
        '[backup] rot: unknown key; did you mean "root"?',
        '[backup] compression = 3: must be one of "gzip", "zstd"',
        '[web] listen = "x": must be HOST:PORT with a port from 0 to 65535',
        "[jira] token_file: missing; Jira needs url, token_file and project, or none of them",
        "[jira] project: missing; Jira needs url, token_file and project, or none of them",
    ]


@pytest.mark.parametrize(
    "toml",
    [
        '[slack]\ntoken = "hunter2"',
        '[slack]\ntoken_file = "hunter2"',
        '[slack]\nwebhook_secret = "hunter2"',
        '[pagerduty]\nrouting_key = "hunter2"',
        '[pagerduty]\nrouting_key_file = "hunter2"',
        '[jira]\ntoken = "hunter2"',
        '[jira]\npassword = "hunter2"',
        'api_token = "hunter2"',
        '[pushgateway]\nurl = "https://ops:hunter2@push.example"',
        '[service]\nhealth_url = "https://ops:hunter2@app.example/healthz"',
    ],
)
def test_a_secret_is_refused_and_never_repeated(refusal, toml):
    (line,) = refusal(toml)
    assert "hunter2" not in line


def test_a_literal_token_is_pointed_to_its_file(refusal):
    assert refusal('[slack]\ntoken = "x"') == [
        "[slack] token: secrets are never written here; put it into a file and name that with token_file"
    ]


def test_broken_toml_is_reported_with_its_line(tmp_path):
    path = tmp_path / "backup.toml"
    path.write_text('[backup]\nroot = "/x"\ndays 30\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"backup\.toml: not TOML: .*line 3"):
        load(path, {})
    path.write_bytes(b'[backup]\nroot = "/\xff"\n')
    with pytest.raises(ConfigError, match=r"not UTF-8 \(at line 2\)"):
        load(path, {})


def test_a_missing_configuration_says_how_to_make_one(tmp_path):
    path = tmp_path / "none.toml"
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert str(caught.value) == f"{path}: no such configuration; make one with `scpln-backup -c {path} config init`"
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, {})


def test_the_file_is_the_option_else_the_variable_else_the_system_one(tmp_path):
    environ = {"SCPLN_BACKUP_CONFIG": str(tmp_path / "b.toml")}
    assert find_config("a.toml", environ) == Path("a.toml")
    assert find_config(None, environ) == tmp_path / "b.toml"
    assert find_config(None, {"SCPLN_BACKUP_CONFIG": ""}) == Path("/etc/scpln-backup/config.toml")
    (tmp_path / "b.toml").write_text('environment = "b"\n[database]\nenv_file = ""\n', encoding="utf-8")
    assert load(None, environ).environment == "b"


def test_environment_wins_over_env_file_wins_over_configuration(app, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    path = app("SCPLN_DB=data/from-env-file.db\n", 'path = "/from/toml.db"\n')
    assert load(path, {"SCPLN_DB": "from-environment.db"}).database.path == str(tmp_path / "from-environment.db")
    assert load(path, {"SCPLN_DB": "/abs.db"}).database.path == "/abs.db"
    assert load(path, {"SCPLN_DB": ""}).database.path == str(tmp_path / "opt/data/from-env-file.db")
    assert load(app("SCPLN_DB=\nOTHER=1\n", 'path = "/from/toml.db"\n'), {}).database.path == "/from/toml.db"
    assert load(app(""), {}).database.path == Config().database.path


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("export SCPLN_DB=/a/b.db", "/a/b.db"),
        ("SCPLN_DB='/a/my db.db'", "/a/my db.db"),
        ('SCPLN_DB = "/a/日本.db"  # live', "/a/日本.db"),
        ("SCPLN_DB=/old.db\nSCPLN_DB=/new.db", "/new.db"),
        ("\ufeffSCPLN_DB=/a.db\r\nX=1\r\n", "/a.db"),
    ],
)
def test_an_env_file_is_read_as_the_application_reads_it(app, line, path):
    before = dict(os.environ)
    assert load(app(line), {}).database.path == path
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("${DATA}/scpln.db", "variables are not expanded"),
        ("~/scpln.db", "variables are not expanded"),
        ("postgres://u:p@host/scpln", "an address is not a path"),
        (":memory:", "is not a path"),
        ('"/a\\nb"', "control characters"),
    ],
)
def test_an_scpln_db_that_is_no_path_is_refused(app, value, reason):
    with pytest.raises(ConfigError, match=rf"SCPLN_DB in .*/\.env:2.*{reason}"):
        load(app(f"X=1\nSCPLN_DB={value}\n"), {})


def test_a_dollar_from_the_environment_is_just_a_character(app):
    assert load(app(""), {"SCPLN_DB": "/data/$live.db"}).database.path == "/data/$live.db"
    with pytest.raises(ConfigError, match="SCPLN_DB in the environment: must not contain control characters"):
        load(app(""), {"SCPLN_DB": os.fsdecode(b"/data/\xff.db")})


def test_another_backend_than_db_is_refused_with_the_place(app, tmp_path):
    path = app("# app\nREGISTRY_BACKEND=file\n")
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    message = str(caught.value)
    assert message.startswith(
        f'REGISTRY_BACKEND in {tmp_path}/opt/.env:2 is "file", not "db": the application does not'
    )
    assert "worthless" in message
    assert "\n" not in message
    with pytest.raises(ConfigError, match=r'^REGISTRY_BACKEND in the environment is "memory"'):
        load(app("REGISTRY_BACKEND=db\n"), {"REGISTRY_BACKEND": "memory"})
    with pytest.raises(ConfigError, match='in the environment is something else, not "db"'):
        load(path, {"REGISTRY_BACKEND": "postgres://scpln:hunter2@host/scpln"})
    loaded = load_with_origins(path, {"REGISTRY_BACKEND": "db"})
    assert loaded.backend is not None
    assert loaded.backend.source is Source.ENVIRONMENT
    assert load_with_origins(app(""), {}).backend is None


def test_an_env_file_that_is_named_has_to_be_there(tmp_path):
    path = tmp_path / "backup.toml"
    missing = tmp_path / "gone" / ".env"
    path.write_text(f'[database]\nenv_file = "{missing}"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r'\[database\] env_file = ".*/gone/\.env": no such file'):
        load(path, {})
    path.write_text("", encoding="utf-8")
    if not Path("/opt/scpln/.env").exists():
        assert load_with_origins(path, {}).warnings == ()


def test_an_env_file_that_cannot_be_read_is_an_error(tmp_path, app):
    path = app("")
    (tmp_path / "opt/.env").unlink()
    (tmp_path / "opt/.env").mkdir()
    with pytest.raises(ConfigError, match=r"\.env: cannot be read: Is a directory"):
        load(path, {})
    (tmp_path / "opt/.env").rmdir()
    (tmp_path / "opt/.env").write_bytes(b"SCPLN_DB=/\xff\n")
    with pytest.raises(ConfigError, match=r"\.env: cannot be read: it is not UTF-8"):
        load(path, {})


def test_a_line_that_is_no_assignment_is_a_warning_unless_it_is_ours(app, tmp_path):
    loaded = load_with_origins(app("X='never closed\nSCPLN_DB=/a.db\n"), {})
    assert loaded.warnings == (f"{tmp_path}/opt/.env:1: this is not NAME=VALUE; the line is ignored",)
    assert loaded.config.database.path == "/a.db"
    with pytest.raises(ConfigError, match=r"\.env:1: this is not NAME=VALUE; check the quotes"):
        load(app("SCPLN_DB='/never closed.db\n"), {})


def test_origins_tell_where_each_value_came_from(app, tmp_path):
    path = app("SCPLN_DB=/a.db\n", 'path = "/b.db"\n[retention]\ndays = 60\n')
    loaded = load_with_origins(path, {})
    assert loaded.origins["retention.days"].source is Source.FILE
    assert loaded.origins["retention.days"].where == str(path)
    assert loaded.origins["retention.keep_last"].source is Source.DEFAULT
    assert loaded.origins["database.path"].source is Source.ENV_FILE
    assert loaded.origins["database.path"].where == f"SCPLN_DB in {tmp_path}/opt/.env:1"
    assert loaded.warnings == (
        f"{path}: [database] path is not used: SCPLN_DB in {tmp_path}/opt/.env:1 wins, with /a.db",
    )
    loaded = load_with_origins(path, {"SCPLN_DB": "/b.db"})
    assert loaded.origins["database.path"].source is Source.ENVIRONMENT
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("tz", "name"),
    [("Asia/Tokyo", "Asia/Tokyo"), (":Europe/Berlin", "Europe/Berlin"), ("", "UTC")],
)
def test_without_a_timezone_the_hosts_is_taken(monkeypatch, tz, name):
    monkeypatch.setenv("TZ", tz)
    assert Config().timezone.key == name


def test_a_host_zone_without_a_name_has_to_be_configured(monkeypatch, refusal):
    monkeypatch.setenv("TZ", "CET-1CEST")
    (line,) = refusal("")
    assert line.startswith('[schedule] timezone = "": must be set: TZ is "CET-1CEST", which does not name an IANA zone')


@pytest.mark.parametrize("kind", ["link", "copy", "missing"])
def test_without_tz_the_host_zone_is_that_of_etc_localtime(monkeypatch, tmp_path, kind):
    tokyo = tmp_path / "zoneinfo/Asia/Tokyo"
    tokyo.parent.mkdir(parents=True)
    tokyo.write_bytes(resources.files("tzdata.zoneinfo.Asia").joinpath("Tokyo").read_bytes())
    localtime = tmp_path / "localtime"
    if kind == "link":
        localtime.symlink_to(tokyo)
    elif kind == "copy":
        localtime.write_bytes(tokyo.read_bytes())
    monkeypatch.setattr(zone, "LOCALTIME", localtime)
    monkeypatch.delenv("TZ", raising=False)
    zone._host_zone.cache_clear()
    try:
        found = Config().timezone
    finally:
        zone._host_zone.cache_clear()
    assert found.key == {"link": "Asia/Tokyo", "copy": "localtime", "missing": "UTC"}[kind]
    assert datetime(2025, 10, 5, tzinfo=found).utcoffset() == timedelta(hours=0 if kind == "missing" else 9)
