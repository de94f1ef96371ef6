"""The status page as HTML: no scripts, nothing from elsewhere, one inline style that the policy names."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from scpln_backup.service.statusline import working
from scpln_backup.service.texts import TEXTS
from scpln_backup.support.text import human_bytes, human_duration

if TYPE_CHECKING:
    from datetime import datetime

    from jinja2 import Template

    from scpln_backup.model import RunRecord
    from scpln_backup.service.view import View

TEMPLATES = Path(__file__).parent / "templates"


def render(view: View) -> tuple[bytes, str]:
    """The page and the Content-Security-Policy that fits it."""
    template, style, policy = _prepared()

    def moment(at: datetime | None) -> str:
        return "" if at is None else at.astimezone(view.zone).strftime("%Y-%m-%d %H:%M %Z")

    text = template.render(
        view=view,
        status=view.status,
        working=working(view.activity),
        t=TEXTS[view.locale],
        css=style,
        moment=moment,
    )
    return text.encode(), policy


@cache
def _prepared() -> tuple[Template, Markup, str]:
    """The compiled template, the style and the policy: files of the package, the same for the process's life."""
    # The style stands in the page as it is; `<` and `&` do not occur in it.
    style = Markup((TEMPLATES / "status.css").read_text(encoding="utf-8"))  # noqa: S704 - our own file, no input
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, auto_reload=False
    )
    environment.filters.update(size=_size, duration=_duration, outcome=_outcome)
    return environment.get_template("status.html"), style, policy


def _size(count: int | None) -> str:
    return "" if count is None else human_bytes(count)


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else human_duration(seconds)


def _outcome(run: RunRecord) -> str:
    return "interrupted" if run.interrupted else run.outcome.value
