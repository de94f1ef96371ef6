"""The status page as HTML: no scripts, nothing from elsewhere, one inline style that the policy names."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from scpln_backup.config.schema import Locale
from scpln_backup.rules.health import Level
from scpln_backup.service.page import charts, english, japanese, panels
from scpln_backup.service.page.words import Words, with_commands

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import Template

    from scpln_backup.records.outbox import ChannelState
    from scpln_backup.service.page.panels import Month
    from scpln_backup.service.page.texts import Texts
    from scpln_backup.service.page.view import Recorded, View

TEMPLATES = Path(__file__).parent / "templates"
TEXTS: Mapping[Locale, Texts] = {Locale.EN: english.TEXTS, Locale.JA: japanese.TEXTS}


def render(view: View, locale: Locale) -> tuple[bytes, str]:
    """The page and the Content-Security-Policy that fits it."""
    template, style, policy = _prepared()
    texts = TEXTS[locale]
    words = Words(texts, locale, view.zone, view.now)
    recorded = view.recorded
    text = template.render(
        view=view,
        locale=locale,
        t=texts,
        say=words,
        css=style,
        level=Level.CRITICAL if recorded is None else recorded.status.health.level,
        to_do=_to_do(view, texts, words),
        month=None if recorded is None else _month(view, recorded, texts, words),
    )
    return text.encode(), policy


def _to_do(view: View, texts: Texts, words: Words) -> list[str]:
    """What is wrong and what to do about it, most serious first."""
    if view.recorded is None:
        told = [texts.unreadable.format(view.problem), texts.unreadable_help]
    else:
        told = [words.reason(reason) for reason in view.recorded.status.health.why]
    return told if view.notice is None else [*told, texts.notice.format(view.notice)]


def _month(view: View, recorded: Recorded, texts: Texts, words: Words) -> Month | None:
    """None when there was no run in it: then there is nothing to draw."""
    days = charts.last_days(recorded.month, now=view.now, zone=view.zone, installed_at=recorded.installed_at)
    return panels.month(days, texts, words) if any(day.runs for day in days) else None


def _standing(channel: ChannelState) -> str:
    """How a channel of notifications stands: the name of its symbol."""
    if channel.failing_since is not None:
        return "failing"
    return "waiting" if channel.waiting else "current"


@cache
def _prepared() -> tuple[Template, Markup, str]:
    """The compiled template, the style and the policy: files of the package, the same for the process's life."""
    # The style stands in the page as it is; `<` and `&` do not occur in it.
    style = Markup((TEMPLATES / "page.css").read_text(encoding="utf-8"))  # noqa: S704 - our own file, no input
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(commands=with_commands, ending=charts.ending, standing=_standing)
    environment.globals.update(sizes=panels)
    return environment.get_template("page.html"), style, policy
