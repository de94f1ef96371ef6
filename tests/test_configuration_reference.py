"""docs/configuration.md: up to date with the types, and true to what a reload does."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from scpln_backup.config.keys import NEEDS_RESTART, Key, keys, nested, plain, sections
from scpln_backup.config.load import load
from scpln_backup.config.reference import reference
from scpln_backup.config.schema import Config
from scpln_backup.service.reload import keep_until_restart

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"
OTHERS = (
    True,
    False,
    2,
    3,
    0.5,
    "/other",
    "https://other.example",
    "other",
    "OTHER",
    "fast",
    "zstd",
    "en",
    "warning",
    "info",
    [],
    ["other"],
    ["run"],
)
REGENERATE = "see docs/development.md: the page is made from config/schema.py"


def test_the_page_is_what_the_program_makes_of_the_types():
    assert PAGE.read_text(encoding="utf-8") == reference(), REGENERATE


def rows() -> dict[str, list[str]]:
    """Path of each key -> the cells of its row."""
    found, section = {}, ""
    for line in reference().splitlines():
        if heading := re.fullmatch(r"## \[(.+)\]", line):
            section = f"{heading[1]}."
        elif re.match(r"\| `[a-z_]+` \| ", line) and not line.startswith("| `scpln-backup"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            found[section + cells[0].strip("`")] = cells
    return {path: cells for path, cells in found.items() if len(cells) == 5}


def test_every_key_has_a_row_with_its_default_and_its_description():
    found = rows()
    assert set(found) == {key.path for key in keys()}
    for key in keys():
        _, value, default, meaning, _ = found[key.path]
        assert value.replace("\\|", "|") == key.must
        assert meaning.replace("\\|", "|") == key.description
        tree = nested({key.path: key.default})
        shown = default.strip("`").replace("\\|", "|")
        assert shown in (str(key.default).lower(), str(key.default).replace("'", '"'), f'"{key.default}"'), tree
    assert found["retention.days"][1:4] == [
        "a whole number from 0 to 36500",
        "`30`",
        "Artifacts more than this many whole days old may be deleted, as by find -mtime +DAYS.",
    ]


def changed(key: Key) -> Config:
    """The default configuration with another value for this key."""
    for value in OTHERS:
        try:
            other = msgspec.convert(value, type=key.type)
        except msgspec.ValidationError:
            continue
        if msgspec.to_builtins(other) != key.default:
            config = Config()
            if not key.section:
                return msgspec.structs.replace(config, **{key.name: other})
            section = msgspec.structs.replace(getattr(config, key.section), **{key.name: other})
            return msgspec.structs.replace(config, **{key.section: section})
    raise AssertionError(f"no other value for {key.path}")


@pytest.mark.parametrize("key", keys(), ids=lambda key: key.path)
def test_what_the_page_says_of_a_reload_is_what_a_reload_does(key):
    new = changed(key)
    kept, held_back = keep_until_restart(Config(), new)
    if key.path in NEEDS_RESTART:
        assert (plain(kept), held_back) == (plain(Config()), (key.path,))
        assert rows()[key.path][4] == "**restart**"
    else:
        assert (plain(kept), held_back) == (plain(new), ())
        assert rows()[key.path][4] == "reload"


def test_the_sections_come_in_the_order_of_the_file():
    headings = re.findall(r"^## \[(.+)\]$", reference(), re.MULTILINE)
    assert headings == list(sections())


def test_a_file_with_the_line_for_editors_loads(tmp_path):
    line = re.search(r"^#:schema .*$", reference(), re.MULTILINE)
    assert line is not None
    path = tmp_path / "config.toml"
    path.write_text(f'{line[0]}\n[database]\nenv_file = ""\n[retention]\ndays = 3\n', encoding="utf-8")
    assert load(path, {}).retention.days == 3


def test_its_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", reference()):
        assert target.startswith("https://") or (PAGE.parent / target).exists(), target
