"""The texts that the configuration is turned into: the example, `config init`, `config show`, the schema."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import msgspec
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from scpln_backup.config.keys import is_secret, keys, nested, plain
from scpln_backup.config.load import load, load_with_origins
from scpln_backup.config.parse import parse
from scpln_backup.config.schema import Config
from scpln_backup.config.show import HIDDEN, as_dict, as_toml, hide, json_schema
from scpln_backup.config.write import assignment, example, from_env, init
from scpln_backup.errors import ConfigError

EXAMPLE = Path(__file__).parent.parent / "config.example.toml"
DESIGN_KEYS = {
    "environment", "locale", "database.name", "database.path", "database.env_file", "backup.root",
    "backup.compression", "backup.suspect_shrink_percent", "retention.days", "retention.keep_last",
    "retention.keep_daily", "retention.keep_weekly", "retention.keep_monthly", "retention.keep_yearly",
    "retention.keep_verified", "schedule.timezone", "schedule.backup", "schedule.drill", "schedule.review",
    "schedule.catch_up", "state.directory", "web.listen", "service.units", "service.health_url", "drill.command",
    "drill.directory", "drill.timeout_seconds", "rebuild.command", "rebuild.directory", "audit.log",
    "slack.token_file", "slack.channel", "pushgateway.url", "pagerduty.routing_key_file",
    "pagerduty.overdue_hours", "jira.url", "jira.token_file", "jira.project",
}  # fmt: skip


def test_the_example_is_what_the_program_writes():
    assert EXAMPLE.read_text(encoding="utf-8") == example()


def test_the_example_loads_and_equals_the_defaults():
    assert load(EXAMPLE, {"SCPLN_DB": Config().database.path, "REGISTRY_BACKEND": "db"}) == Config()


def test_the_example_shows_every_key_within_a_hundred_columns():
    text = example()
    assert {key.path for key in keys()} >= DESIGN_KEYS
    assert plain(parse(tomllib.loads(text), "example")).keys() == {key.path for key in keys()}
    assert max(map(len, text.splitlines())) <= 100


def test_the_example_fits_the_json_schema():
    schema = json_schema()
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    document = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))
    validator.validate(document)
    for wrong in (
        {"backup": {"rot": "/x"}},
        {"zzz": 1},
        {"retention": {"days": -1}},
        {"backup": {"root": "relative"}},
        {"backup": {"compression": "gz"}},
        {"slack": {"token": "x"}},
    ):
        assert not validator.is_valid(wrong), wrong


def test_every_key_of_the_schema_has_a_description_and_a_default():
    definitions = json_schema()["$defs"]
    for key in keys():
        owner = type(getattr(Config(), key.section)).__name__ if key.section else "Config"
        stated = definitions[owner]["properties"][key.name]
        assert stated["default"] == key.default
        assert stated["description"] == key.description
        assert key.description.endswith(".")
    assert all("additionalProperties" not in each or not each["additionalProperties"] for each in definitions.values())


def test_no_key_holds_a_secret_itself():
    assert [key.path for key in keys() if is_secret(key.name)] == []
    assert hide({"slack.token": "x", "slack.token_file": "/t"}) == {"slack.token": HIDDEN, "slack.token_file": "/t"}


def test_show_is_toml_that_loads_to_the_same_with_each_origin(tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    (tmp_path / ".env").write_text("SCPLN_DB=data/a.db\n", encoding="utf-8")
    path = tmp_path / "backup.toml"
    path.write_text(f'[database]\nenv_file = "{tmp_path}/.env"\n[service]\nunits = ["a", "b"]\n', encoding="utf-8")
    loaded = load_with_origins(path, {})
    text = as_toml(loaded)
    lines = text.splitlines()
    assert f'path = "{tmp_path}/data/a.db"  # SCPLN_DB in {tmp_path}/.env:1' in lines
    assert f'units = ["a", "b"]  # {path}' in lines
    assert "days = 30  # default" in lines
    assert 'timezone = ""  # default (the host\'s, Asia/Tokyo)' in lines
    path.write_text(text, encoding="utf-8")
    assert load(path, {}) == loaded.config


def test_show_tells_of_a_secret_that_is_a_credential(tmp_path):
    path = tmp_path / "backup.toml"
    path.write_text(
        '[database]\nenv_file = ""\n[slack]\ntoken_file = "credential:slack-token"\n'
        '[pagerduty]\nrouting_key_file = "/etc/scpln-backup/routing-key"\n',
        encoding="utf-8",
    )
    loaded = load_with_origins(path, {})
    lines = as_toml(loaded).splitlines()
    assert f'token_file = "credential:slack-token"  # {path} (from a credential of the unit)' in lines
    assert f'routing_key_file = "/etc/scpln-backup/routing-key"  # {path}' in lines
    assert as_dict(loaded)["origins"]["slack.token_file"]["where"] == f"{path} (from a credential of the unit)"


def test_show_as_json_has_values_and_origins(tmp_path):
    path = tmp_path / "backup.toml"
    path.write_text('[database]\nenv_file = ""\npath = "/x.db"\n', encoding="utf-8")
    document = json.loads(json.dumps(as_dict(load_with_origins(path, {"SCPLN_DB": "/y.db"}))))
    assert document["config"]["database"]["path"] == "/y.db"
    assert document["origins"]["database.path"] == {"source": "environment", "where": "SCPLN_DB in the environment"}
    assert document["path"] == str(path)
    assert len(document["warnings"]) == 1


def test_from_env_takes_over_the_applications_env(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text(
        "export SCPLN_DB='data/scpln.db'\nREGISTRY_BACKEND=db\nSLACK_TOKEN=hunter2\nPORT=8000\n", encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)
    draft = from_env(Path(".env"))
    assert draft.unused == ("SLACK_TOKEN", "PORT")
    assert "hunter2" not in draft.text
    assert tomllib.loads(draft.text)["database"] == {
        "path": f"{tmp_path}/data/scpln.db",
        "env_file": f"{tmp_path}/.env",
    }
    assert "\n#days = 30\n" in draft.text
    assert f"Taken from SCPLN_DB in {tmp_path}/.env:1." in " ".join(draft.text.replace("\n# ", " ").split())
    path = tmp_path / "backup.toml"
    path.write_text(draft.text, encoding="utf-8")
    loaded = load_with_origins(path, {})
    assert loaded.config.database.path == f"{tmp_path}/data/scpln.db"
    assert loaded.warnings == ()


def test_from_env_refuses_what_load_would(tmp_path):
    env = tmp_path / ".env"
    with pytest.raises(ConfigError, match="no such file"):
        from_env(env)
    env.write_text("REGISTRY_BACKEND=json\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r'REGISTRY_BACKEND in .*/\.env:1 is "json", not "db"'):
        from_env(env)


def test_a_plain_init_is_every_default_commented_out(tmp_path):
    text = init().text
    assert parse(tomllib.loads(text), "init") == Config()
    uncommented = "\n".join(line[1:] if line[:1] == "#" and line[1:2] != " " else line for line in text.splitlines())
    assert tomllib.loads(uncommented) == nested({key.path: key.default for key in keys()})


def test_init_takes_overrides_and_checks_them(tmp_path):
    env = tmp_path / ".env"
    env.write_text("SCPLN_DB=/a.db\n", encoding="utf-8")
    draft = init(env, {"backup.root": "/mnt/b", "database.path": "/b.db", "environment": "staging"})
    assert tomllib.loads(draft.text)["backup"] == {"root": "/mnt/b"}
    assert tomllib.loads(draft.text)["database"]["path"] == "/b.db"
    with pytest.raises(ConfigError, match=r'^config init: \[backup\] rot: unknown key; did you mean "root"\?$'):
        init(None, {"backup.rot": "/mnt/b"})


@given(text=st.text(), items=st.lists(st.text()))
@settings(deadline=None, max_examples=150)
def test_any_value_is_written_as_one_line_that_reads_back(text, items):
    for value in (text, items):
        line = assignment("key", value)
        assert len(line.split("\n")) == 1
        assert tomllib.loads(line) == {"key": value}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)


def parsed(tables) -> tuple[Config | None, str]:
    try:
        return parse(tables, "backup.toml"), ""
    except ConfigError as error:
        return None, str(error)


@given(key=st.sampled_from(keys()), value=VALUES)
@settings(deadline=None, max_examples=300)
def test_whatever_a_key_is_given_it_is_taken_or_refused_by_name(key, value):
    config, error = parsed(nested({key.path: value}))
    if config is None:
        assert all(line.startswith("backup.toml: ") for line in error.split("\n"))
        assert f"backup.toml: {key.label}" in error or "Jira needs" in error
    else:
        assert plain(config) == {**plain(Config()), key.path: value}
        assert parse(tomllib.loads(tomli_w.dumps(nested(plain(config)))), "again") == config


@given(tables=st.dictionaries(st.text(max_size=12), VALUES, max_size=4))
@settings(deadline=None, max_examples=100)
def test_any_document_is_taken_or_refused_a_line_for_each_mistake(tables):
    config, error = parsed(tables)
    if config is None:
        assert all(line.startswith("backup.toml: ") for line in error.split("\n"))
        assert error.isprintable() or "\n" in error
    else:
        assert set(tables) <= {key.section or key.name for key in keys()}


def test_a_config_survives_the_way_to_another_process():
    config = msgspec.structs.replace(Config(), environment="staging")
    assert msgspec.json.decode(msgspec.json.encode(config), type=Config) == config


def test_loading_imports_nothing_heavy():
    code = (
        "import sys; from scpln_backup.config.load import load; "
        "print(*{'dotenv', 'cronsim', 'difflib', 'tomli_w'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
