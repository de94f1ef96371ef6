"""The manual pages in the man(7) language: the prose of packaging/man with what the program says of itself."""
# ruff: noqa: INP001 - the folder is run as a program

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from scpln_backup.config.keys import Key, keys, section_description
from scpln_backup.config.write import assignment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from verbs import Option, Verb

_SAID_ONCE = {"--help", "--json"}  # for all verbs, at the top
# The words of a usage line that are typed as they are.
_LITERAL = re.compile(r"[a-z-]+")


def command_page(prose: str, command: Verb, epilog: str) -> str:
    """scpln-backup(1). `epilog` is the command's own: "Exit codes: 0 done; 1 …"."""
    verbs = [verb for verb in command.every() if verb.path]
    return _filled(
        prose,
        {
            "OPTIONS": "\n".join(_option(option) for option in command.options),
            "VERBS": "\n".join(line for verb in verbs for line in _verb(verb)),
            "EXITCODES": "\n".join(_exit_code(text) for text in _exit_codes(epilog)),
        },
    )


def config_page(prose: str) -> str:
    """scpln-backup-config(5)."""
    return _filled(prose, {"SECTIONS": "\n".join(_sections())})


def _filled(prose: str, parts: Mapping[str, str]) -> str:
    return re.sub(r"^@([A-Z]+)@$", lambda found: parts[found[1]], prose, flags=re.MULTILINE)


def _verb(verb: Verb) -> Iterator[str]:
    yield ".SS " + " ".join(part for part in (_bold(verb.name), _usage(verb.usage)) if part)
    for number, paragraph in enumerate(verb.help):
        if number:
            yield ".PP"
        yield _text(paragraph)
    for option in verb.options:
        if not _SAID_ONCE & set(option.names):
            yield _option(option)


def _usage(usage: str) -> str:
    words = usage.replace("[OPTIONS]", "").split()
    return " ".join(_bold(word) if _LITERAL.fullmatch(word) else _italic(word) for word in words)


def _option(option: Option) -> str:
    names = ", ".join(_bold(name) for name in option.names)
    value = f" {_italic(option.metavar)}" if option.metavar else ""
    return f".TP\n{names}{value}\n{_text(option.help)}"


def _exit_codes(epilog: str) -> list[str]:
    return epilog.removeprefix("Exit codes: ").removesuffix(".").split("; ")


def _exit_code(text: str) -> str:
    code, _, meaning = text.partition(" ")
    return f".TP\n{_bold(code)}\n{_text(meaning[0].upper() + meaning[1:])}."


def _sections() -> Iterator[str]:
    section = None
    for key in keys():
        if key.section != section:
            section = key.section
            yield f".SH {_text(f'[{section}]' if section else 'TOP OF THE FILE')}"
            if section:
                yield _text(section_description(section))
        yield _key(key)


def _key(key: Key) -> str:
    _, _, default = assignment(key.name, key.default).partition(" = ")
    must = key.must[0].upper() + key.must[1:]
    return (
        f".TP\n{_bold(key.name)}\n{_text(key.description)}\n.br\n{_text(must)}. {_text('Default:')} {_bold(default)}."
    )


def _bold(text: str) -> str:
    return f"\\fB{_escaped(text)}\\fR"


def _italic(text: str) -> str:
    return f"\\fI{_escaped(text)}\\fR"


def _text(text: str) -> str:
    """A paragraph: a line that began with . or ' would be a request to roff."""
    escaped = _escaped(text)
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def _escaped(text: str) -> str:
    """Backslash, and the characters that roff turns into typographic ones (groff_char(7))."""
    for plain, roff in (
        ("\\", "\\e"),
        ("-", "\\-"),
        ("'", "\\(aq"),
        ("`", "\\(ga"),
        ("^", "\\(ha"),
        ("~", "\\(ti"),
        ('"', "\\(dq"),
    ):
        text = text.replace(plain, roff)
    return text
