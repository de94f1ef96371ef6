"""Which settings a reload cannot change."""

from __future__ import annotations

import msgspec

from scpln_backup.config.keys import NEEDS_RESTART, nested, plain
from scpln_backup.config.schema import Config


def keep_until_restart(old: Config, new: Config) -> tuple[Config, tuple[str, ...]]:
    """`new` with what is bound to the process as in `old`, and the names of the settings held back."""
    before, after = plain(old), plain(new)
    held = tuple(sorted(path for path in NEEDS_RESTART if before[path] != after[path]))
    return msgspec.convert(nested(after | {path: before[path] for path in held}), Config), held
