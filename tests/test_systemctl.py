"""support/systemctl.py against a systemctl that answers as told; the real one is asked in tests/test_systemd.py."""

import os
from pathlib import Path

import pytest

from scpln_backup.errors import UnitError
from scpln_backup.support import systemctl

UNIT = "scpln-api.service"
LONG = 30

# Keeps the unit's ActiveState in a file, and does what a file named after the verb says, if there is one.
FAKE = """#!/bin/sh
cd {folder}
echo "$*" >>calls
verb=$3
if [ -e "$verb" ]; then . "./$verb"; fi
case "$*" in
*--property=ActiveState*) cat state;;
*--property=LoadState*) cat load;;
*" stop "*) echo inactive >state;;
*" start "*) echo active >state;;
esac
"""


class Fake:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        program = folder / "systemctl"
        program.write_text(FAKE.format(folder=folder))
        program.chmod(0o755)
        self.state("active")
        (folder / "load").write_text("loaded\n")

    def state(self, state: str) -> None:
        (self.folder / "state").write_text(f"{state}\n")

    def does(self, verb: str, script: str) -> None:
        (self.folder / verb).write_text(script + "\n")

    def calls(self) -> list[str]:
        """The verbs that change something, in order."""
        lines = (self.folder / "calls").read_text().splitlines()
        verbs = [line.split()[2] for line in lines]
        return [verb for verb in verbs if verb != "show"]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Fake(tmp_path)


def test_down_and_up(fake):
    assert systemctl.is_active(UNIT)
    systemctl.stop(UNIT, LONG)
    assert not systemctl.is_active(UNIT)
    systemctl.start(UNIT, LONG)
    assert systemctl.is_active(UNIT)
    # A unit that has failed too often would be refused its start.
    assert fake.calls() == ["stop", "reset-failed", "start"]
    for line in (fake.folder / "calls").read_text().splitlines():
        assert line.startswith("--no-pager --no-ask-password ")
        assert line.endswith(f" -- {UNIT}")


@pytest.mark.parametrize("state", ["active", "activating", "deactivating", "reloading", "maintenance"])
def test_something_of_it_runs(fake, state):
    fake.state(state)
    assert systemctl.is_active(UNIT)


@pytest.mark.parametrize("state", ["inactive", "failed"])
def test_nothing_of_it_runs(fake, state):
    fake.state(state)
    assert not systemctl.is_active(UNIT)


def test_known_or_not(fake):
    assert systemctl.exists(UNIT)
    (fake.folder / "load").write_text("not-found\n")
    assert not systemctl.exists(UNIT)
    (fake.folder / "load").write_text("masked\n")
    with pytest.raises(UnitError, match=f"^{UNIT}: systemd says it is masked"):
        systemctl.exists(UNIT)


@pytest.mark.parametrize("verb", ["stop", "start"])
def test_a_failure_says_what_systemctl_said_and_where_to_look(fake, verb):
    fake.does(
        verb,
        f"echo 'Job for {UNIT} failed because of unavailable resources.' >&2; echo 'See \"x\" for details.' >&2; exit 1",
    )
    with pytest.raises(UnitError) as caught:
        getattr(systemctl, verb)(UNIT, LONG)
    assert str(caught.value) == (
        f"{UNIT}: did not {verb}: systemctl says: Job for {UNIT} failed because of unavailable resources; "
        f"see: journalctl -u {UNIT}"
    )


@pytest.mark.parametrize("verb", ["stop", "start"])
def test_one_that_takes_too_long(fake, verb):
    fake.does(verb, "exec sleep 1000")
    with pytest.raises(UnitError, match=f"^{UNIT}: did not {verb} within 0.5 s; see: journalctl -u {UNIT}$"):
        getattr(systemctl, verb)(UNIT, 0.5)


def test_one_that_comes_back_after_its_stop(fake):
    fake.does("stop", "exit 0")
    with pytest.raises(UnitError, match=f"^{UNIT}: was stopped and runs again"):
        systemctl.stop(UNIT, LONG)


def test_one_that_starts_and_fails(fake):
    fake.does("start", "echo failed >state; exit 0")
    with pytest.raises(UnitError, match=f"^{UNIT}: started and failed at once; see: journalctl -u {UNIT}$"):
        systemctl.start(UNIT, LONG)


def test_not_allowed(fake):
    fake.does("stop", f"echo 'Failed to stop {UNIT}: Interactive authentication required.' >&2; exit 1")
    with pytest.raises(UnitError, match=r"authentication required; run it as root, or have polkit allow it$"):
        systemctl.stop(UNIT, LONG)


def test_no_systemd(fake):
    fake.does(
        "show",
        'echo "System has not been booted with systemd as init system (PID 1). Can\'t operate." >&2; exit 1',
    )
    with pytest.raises(
        UnitError, match=r"not been booted with systemd.*; where there is no systemd, set .* units = \[\]"
    ):
        systemctl.is_active(UNIT)


def test_no_systemctl(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnitError, match=r"^scpln-api.service: systemctl cannot be run \(No such file or directory\);"):
        systemctl.stop(UNIT, LONG)


def test_an_answer_without_words(fake):
    fake.does("show", "exit 0")
    with pytest.raises(UnitError, match="cannot be looked at: systemctl says: exit code 0"):
        systemctl.is_active(UNIT)
