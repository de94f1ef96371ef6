"""Man pages and completions: nothing of the command line is missing, and the shells understand them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import click
import pytest

from scpln_backup.cli.main import command
from scpln_backup.config.keys import keys
from support.box_parts import CHECKOUT

# Completes the words of its arguments with the loaded function, as readline would ask for it at the end of the line.
BASH = """
source "$1"; shift
compopt() { :; }
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_scpln_backup
printf '%s\\n' "${COMPREPLY[@]}"
"""
# A zsh on a terminal of its own (zpty), where alone completion functions run, with what is offered said aloud.
ZSH = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "fpath=($1 \$fpath); autoload -U compinit; compinit -u -D"
zpty -w shell 'compadd() {
    local -a offered
    [[ $* == *" -"[OAD]" "* ]] || { builtin compadd -O offered "$@"; print -l OFFERED:$^offered; }
    builtin compadd "$@"
}'
zpty -w shell "offer() { zle list-choices; print E''ND; }; zle -N offer; bindkey '^I' offer"
zpty -n -w shell "$2"$'\t'
while zpty -r shell line; do
    print -r -- "$line"
    [[ $line != END* ]] || break
done
"""


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated")
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1795305600", "PYTHONPATH": str(CHECKOUT / "daemon")}
    program = [sys.executable, "-W", "error", CHECKOUT / "packaging/generate", folder, folder]
    subprocess.run(program, env=environment, check=True)
    return folder


def verbs(one=command, path=()):
    """Every verb with its path, those that only group others too."""
    yield path, one
    if isinstance(one, click.Group):
        for name, below in commands(one).items():
            yield from verbs(below, (*path, name))


def commands(group):
    context = click.Context(group)
    return {name: group.get_command(context, name) for name in group.list_commands(context)}


def options(verb):
    return {name for option in verb.params if isinstance(option, click.Option) for name in option.opts}


def page(path):
    """As a terminal shows it, on lines that are long enough for everything; troff's warnings are errors."""
    done = subprocess.run(
        ["man", "--warnings", "--encoding=UTF-8", "--local-file", path],
        env={"MANWIDTH": "2000", "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


needs_man = pytest.mark.skipif(shutil.which("man") is None, reason="Debian's package man-db is missing")


@needs_man
def test_the_manual_has_every_verb_and_option(generated):
    text = page(generated / "scpln-backup.1")
    sections = re.split(r"^   (?=[a-z])", text, flags=re.MULTILINE)
    of_verbs = {re.split(r" [^a-z]|\n", section)[0]: section for section in sections[1:]}
    assert of_verbs.keys() == {" ".join(path) for path, _ in verbs() if path}
    for path, verb in verbs():
        shown = of_verbs[" ".join(path)] if path else sections[0]
        assert options(verb) - {"--json"} <= set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", shown))
        assert " ".join(verb.help.split("\n\n")[0].split()) in shown or not path
    assert "2026-11-22" in text


@needs_man
def test_the_manual_of_the_configuration_has_every_key(generated):
    text = page(generated / "scpln-backup-config.5")
    for key in keys():
        _, _, section = text.partition(f"\n[{key.section}]\n" if key.section else "\nTOP OF THE FILE\n")
        described = re.split(r"^\S", section, flags=re.MULTILINE)[0]
        entry = re.search(rf"^       {key.name}\s+(.*)$", described, re.MULTILINE)
        assert entry is not None, key.path
        assert entry[1].strip() == " ".join(key.description.split())


def test_bash_completes_verbs_options_and_values(generated, tmp_path):
    (tmp_path / "some.toml").touch()

    def complete(*words):
        script = generated / "scpln-backup.bash"
        done = subprocess.run(
            ["bash", "-euc", BASH, "bash", script, "scpln-backup", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return set(done.stdout.split())

    for path, verb in verbs():
        below = set(commands(verb)) if isinstance(verb, click.Group) else set()
        assert complete(*path, "") >= below | options(verb)
    assert complete("st") == {"status"}
    assert complete("restore", "--dr") == {"--dry-run"}
    assert complete("--json", "-c", "status", "config", "i") == {"init"}
    assert complete("-c", "so") == {"some.toml"}
    assert complete("incident", "report", "--locale", "") == {"ja", "en"}
    assert complete("restore", "--at", "") == set()


@pytest.mark.skipif(shutil.which("fish") is None, reason="Debian's package fish is missing")
def test_fish_completes_verbs_options_and_values(generated, tmp_path):
    (tmp_path / "some.toml").touch()

    def complete(line):
        program = f"source {generated}/scpln-backup.fish; complete --do-complete 'scpln-backup {line}'"
        environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
        done = subprocess.run(
            ["fish", "--no-config", "-c", program],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return {entry.split("\t")[0] for entry in done.stdout.splitlines()}

    assert complete("") == set(commands(command))
    assert complete("restore --d") == {"--dry-run"}
    assert complete("--json -c status config i") == {"init"}
    assert complete("-c so") == {"some.toml"}
    assert complete("incident report --locale ") == {"ja", "en"}
    assert options(commands(command)["restore"]) <= complete("restore --")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="Debian's package zsh is missing")
def test_zsh_completes_verbs_and_options(generated, tmp_path):
    def complete(line):
        done = subprocess.run(
            ["zsh", "-f", "-c", ZSH, "zsh", generated, f"scpln-backup {line}"],
            cwd=tmp_path,
            env={"HOME": str(tmp_path), "PATH": os.environ["PATH"], "TERM": "dumb"},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return set(re.findall(r"OFFERED:([a-z-]+)", done.stdout))

    assert complete("") == set(commands(command))
    assert complete("restore --") == options(commands(command)["restore"]) | {"--help"}
    assert complete("--json -c status config i") == {"init"}
    assert complete("incident report --locale ") == {"ja", "en"}
