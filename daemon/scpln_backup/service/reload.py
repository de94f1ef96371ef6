"""Which settings a reload cannot change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from scpln_backup.config.schema import Config


def keep_until_restart(old: Config, new: Config) -> tuple[Config, tuple[str, ...]]:
    """`new` with what is bound to the process as in `old`, and the names of the settings held back.

    The daemon's lock lies in the state folder, and the web server is bound to its address.
    """
    held = (
        ("state.directory", old.state.directory != new.state.directory),
        ("web.listen", old.web.listen != new.web.listen),
        ("web.max_connections", old.web.max_connections != new.web.max_connections),
    )
    kept = msgspec.structs.replace(new, state=old.state, web=old.web)
    return kept, tuple(name for name, differs in held if differs)
