"""The configuration that was in force last, for the one question that must be answered with a broken one too:
is a backup overdue, and who must know?
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.config.schema import Config
from scpln_backup.support import files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scpln_backup.errors import ConfigError

log = logging.getLogger(__name__)

_NAME = "last-good-config.json"
# systemd.exec(5): where StateDirectory= is; without a configuration nothing else says.
_FOLDER = "STATE_DIRECTORY"


def remember(config: Config) -> None:
    """Keep the configuration in its state folder. A failure is logged: it costs nothing today."""
    path = Path(config.state.directory) / _NAME
    try:
        if not path.exists() or path.read_bytes() != msgspec.json.encode(config):
            files.write_durably(path, msgspec.json.encode(config))
    except OSError as error:
        log.warning("%s cannot be written: %s", path, error.strerror or error)


def recall(environ: Mapping[str, str], problem: ConfigError) -> Config:
    """What was kept, in the service's state folder; `problem` is raised again when there is nothing to be had."""
    folder = environ.get(_FOLDER, "").partition(":")[0]
    if not folder:
        raise problem
    try:
        return msgspec.json.decode((Path(folder) / _NAME).read_bytes(), type=Config)
    except (OSError, msgspec.MsgspecError):
        raise problem from None
