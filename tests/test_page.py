"""The status page: every state in both languages, hostile names, the policy, the colours."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import re
import string
import subprocess
import sys
from datetime import UTC, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scpln_backup.config.schema import Locale
from scpln_backup.model import Outcome, Stage, State, Trigger
from scpln_backup.records.outbox import ChannelState
from scpln_backup.rules.health import Health, Level
from scpln_backup.rules.reasons import Reason
from scpln_backup.service.page.charts import ENDINGS
from scpln_backup.service.page.render import TEMPLATES, TEXTS, render
from scpln_backup.service.page.texts import Texts
from scpln_backup.service.page.words import Words, with_commands
from scpln_backup.service.runner import Activity
from support import page_views as views
from support.markup import Page

EN, JA = Locale.EN, Locale.JA
NOW = views.NOW
HOSTILE = "<script>alert(1)</script>&\"'`<b onload=x>`</style></title>{{ 7 * 7 }}{% endif %}"
STATES = [pytest.param(make, locale, id=f"{name}-{locale}") for name, make in views.STATES.items() for locale in Locale]


def page_of(view, locale=EN):
    body, policy = render(view, locale)
    return Page(body.decode()), body.decode(), policy


def said(view, locale=EN):
    return page_of(view, locale)[0].text


# Both languages


def test_both_languages_name_everything():
    assert set(TEXTS) == set(Locale)
    for texts in TEXTS.values():
        assert set(texts.health) == set(Level)
        assert set(texts.stages) == set(Stage)
        assert set(texts.states) == set(State)
        assert set(texts.triggers) == set(Trigger)
        assert set(texts.outcomes) == set(ENDINGS) == {*Outcome, "interrupted"}
        assert set(texts.channels) == {"audit", "jira", "pagerduty", "pushgateway", "slack"}


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Texts)])
def test_both_languages_say_the_same_with_the_same_facts(field):
    english, japanese = getattr(TEXTS[EN], field), getattr(TEXTS[JA], field)
    if not isinstance(english, str):
        return

    def slots(text):
        return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}

    assert english
    assert japanese
    assert slots(english) == slots(japanese)
    assert re.findall(r"`[^`]+`", english) == re.findall(r"`[^`]+`", japanese)


# Every state


@pytest.mark.parametrize(("make", "locale"), STATES)
def test_every_state_is_a_whole_page_in_its_language(make, locale):
    page, body, _ = page_of(make(), locale)
    assert f'<html lang="{locale}">' in body
    assert page.tags.count("h1") == 1
    assert {"header", "main", "footer"} <= set(page.tags)
    assert page.links == ["/metrics", "/healthz"]
    assert '<meta http-equiv="refresh" content="60">' in body
    for place in ("scpln", "production", "/opt/scpln/data/scpln.db", "/var/backups/scpln", "scpln-backup 0.2.0"):
        assert place in page.text
    for leak in ("None", "Undefined", "{}", "datetime", "Level.", "StrEnum"):
        assert leak not in page.text
    # Every symbol that is used is there to be used.
    used = {value for tag, name, value in page.attributes if (tag, name) == ("use", "href")}
    assert used <= {f"#{value}" for tag, name, value in page.attributes if (tag, name) == ("symbol", "id")}


def quoted(view):
    """What programs said, which stays in the language they said it in."""
    found = [view.problem, view.notice]
    if view.recorded is not None:
        found += [told.error for told in (*view.recorded.runs, *view.recorded.drills, *view.recorded.channels)]
    return [text for text in found if text is not None]


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in views.STATES.items()])
def test_nothing_english_is_left_on_a_japanese_page(make):
    page, body, _ = page_of(make(), JA)
    told = " ".join([page.text, *page.values("aria-label"), *re.findall(r"<title>([^<]*)</title>", body)])
    for text in quoted(make()):
        told = told.replace(text, "")
    names = set(TEXTS[EN].channels.values())
    for field in dataclasses.fields(Texts):
        value = getattr(TEXTS[EN], field.name)
        for text in (value,) if isinstance(value, str) else value.values():
            pieces = [piece.strip() for piece, *_ in string.Formatter().parse(text) if text not in names]
            assert not [piece for piece in pieces if len(piece) > 3 and "`" not in piece and piece in told], field.name


def test_healthy():
    text = said(views.healthy())
    for expected in (
        "Healthy Nothing to do.",
        "Last good backup 7 h 30 min ago 2026-11-22 02:30 JST",
        "Next run in 16 h 29 min 2026-11-23 02:30 JST",
        "Next good backup due in 16 h 29 min 2026-11-23 02:30 JST",
        "A restore takes 2.8 s measured by the last drill",
        "Outcomes 30 success",
        "Artifact size last 113 MiB min 107 MiB max 113 MiB",
        "Longest run last 6.1 s min 6.1 s max 7.3 s",
        "31 stored, 31 verified, 3.0 GiB",
        "scpln-20261119_0230.db.gz pinned verified 2026-11-19 02:30 112 MiB",
        "19 more: scpln-backup list",
        "2026-11-22 02:30 success schedule 6.1 s 113 MiB scpln-20261122_0230.db.gz",
        "2026-11-15 04:00 success 2.9 s",
        "Slack up to date last sent 7 h 30 min ago",
        "Jira up to date nothing sent yet",
        "Open incidents No incident is open.",
    ):
        assert expected in text


def test_healthy_in_japanese():
    text = said(views.healthy(), JA)
    for expected in (
        "正常 対応は不要です。",
        "最後の正常なバックアップ 7時間30分前 2026-11-22 02:30 JST",
        "次回の実行 16時間29分後 2026-11-23 02:30 JST",
        "リストアの所要時間 2.8秒 直近の訓練での実測値",
        "実行結果 成功 30件",
        "31件（検証済み 31件）、3.0 GiB",  # noqa: RUF001 - full-width punctuation is Japanese
        "ほか19件: scpln-backup list",
        "Slack 最新 最終送信 7時間30分前",
    ):
        assert expected in text


def test_warning_tells_what_to_do_and_what_goes_on():
    page, body, _ = page_of(views.warning())
    for expected in (
        "Warning What is wrong, and what to do the run of 2026-11-22 09:41 is suspect: rows fell from 48,211",
        "scpln-backup verify scpln-20261122_0941.db.gz --accept-shrink",
        "nothing has got through to slack since 2026-11-22 02:31, 2 messages wait: slack: invalid_auth",
        "Backup under way compressing 42 % since 2026-11-22 10:00",
        "29 success 1 degraded 1 suspect 1 failed",
        "31 stored, 30 verified, 3.0 GiB, 1 suspect",
        "Jira 1 waiting for 4 s",
        f"Slack failing for 7 h 29 min, 2 waiting {views.REVOKED} next attempt in 12 min",
        views.FELL,
    ):
        assert expected in page.text
    assert ("progress", "value", "42") in page.attributes
    assert 'class="health is-warning"' in body


def test_critical_tells_everything_most_serious_first():
    text = said(views.critical())
    places = [
        text.index(expected)
        for expected in (
            "Critical",
            "no backup has succeeded since 2026-11-19 02:30, more than 24 hours ago",
            f"the run of 2026-11-22 02:30 failed: {views.DISK_FULL}",
            "1 artifact is corrupt",
            "the drill of 2026-11-22 04:00 failed",
            "retention is frozen: the last run failed",
            "Configuration: reload refused",
            "Incident 3: restored from scpln-20261122_0230.db.gz at 2026-11-21 04:00",
            "report 6 h overdue, it was due 2026-11-22 04:00 scpln-backup incident show 3",
            "report due in 21 h, at 2026-11-23 07:00",
            "Next good backup due 2 d 8 h overdue 2026-11-20 02:30 JST",
            "25 success 1 interrupted 2 failed 2 d without a run",
            "2026-11-22 04:00 failed 2.8 s the smoke test ended with exit code 2",
            "28 stored, 27 verified, 3.0 GiB, 1 corrupt",
            "scpln-20261108_0230.db.gz pinned unverified",
            "2026-11-20 02:30 interrupted schedule",
        )
    ]
    assert places == sorted(places)


def test_critical_in_japanese_quotes_what_programs_said():
    text = said(views.critical(), JA)
    for expected in (
        "異常 対応が必要な項目 2026-11-19 02:30 を最後に、24時間以上、正常なバックアップがありません。",
        f"2026-11-22 02:30 の実行が失敗しました: {views.DISK_FULL}",
        "破損したバックアップが1件あります。",
        "直前の実行が失敗したため、自動削除を停止しています。",
        "報告期限（2026-11-22 04:00）を6時間超過",  # noqa: RUF001 - full-width punctuation is Japanese
        "次回成功の期限 2日8時間超過",
    ):
        assert expected in text


def test_just_installed():
    page, _, _ = page_of(views.empty())
    for expected in (
        "Warning What is wrong, and what to do there is no verified artifact yet: run scpln-backup backup",
        "Last good backup never",
        "Next good backup due in 23 h 57 min",
        "A restore takes not measured yet",
        "No run yet. The first one is planned for 2026-11-23 02:30 (in 16 h 29 min). To make one now: scpln-backup backup",
        "No drill yet.",
        "No channel is configured: nobody is told.",
        "No artifact yet.",
    ):
        assert expected in page.text
    assert "figure" not in page.tags


def test_a_month_without_a_run_is_not_a_new_installation():
    runs = [views.run(40)]
    view = views.view(runs=runs)
    view = dataclasses.replace(view, recorded=dataclasses.replace(view.recorded, month=[]))
    assert "No run in the last 30 days." in said(view)
    assert "No run yet." not in said(view)


def test_nothing_is_planned():
    text = said(views.view(next_run_at=None))
    assert "Next run not planned" in text
    assert "no next run is planned: see scpln-backup schedule" in text


def test_an_unreadable_catalog_leaves_what_is_known_without_it():
    view = dataclasses.replace(views.unreadable(), drilling=Activity(trigger=Trigger.SCHEDULE, since=NOW))
    page, body, _ = page_of(view)
    for expected in (
        "Critical What is wrong, and what to do The catalog cannot be read: /var/lib/scpln-backup/catalog.db: database",
        "Your backups do not depend on it. scpln-backup list",
        "Restore drill under way starting since 2026-11-22 10:00",
        "/var/backups/scpln",
    ):
        assert expected in page.text
    assert 'class="health is-critical"' in body
    assert "table" not in page.tags


@pytest.mark.parametrize(
    ("activity", "expected"),
    [
        (Activity(trigger=Trigger.CLI, since=NOW), "Backup under way starting since 2026-11-22 10:00"),
        (Activity(trigger=Trigger.CLI, since=NOW, stage=Stage.SNAPSHOT, percent=0), "copying 0 % since"),
        (
            Activity(trigger=Trigger.CLI, waiting_for="a drill (process 7)"),
            "Backup under way waiting: a drill (process 7)",
        ),
    ],
)
def test_what_is_under_way(activity, expected):
    page, _, _ = page_of(views.view(backing_up=activity))
    assert expected in page.text
    assert ("progress" in page.tags) == (activity.percent is not None)


def test_idle_shows_nothing_under_way():
    assert "under way" not in said(views.healthy())


def test_overdue_only_while_a_run_may_still_make_it():
    """The deadline is over, and said to be, though a run under way keeps that from being a reason."""
    health = Health(Level.HEALTHY, (), overdue=True)
    text = said(views.view(health=health, last_success_at=NOW - timedelta(hours=25)))
    assert "Next good backup due 1 h overdue" in text
    assert "Nothing to do." in text


def test_a_channel_that_this_version_does_not_know_is_shown_by_its_name():
    assert "pigeon 3 waiting for 1 h" in said(
        views.view(channels=[ChannelState(name="pigeon", waiting=3, oldest_at=NOW - timedelta(hours=1))])
    )


# Words


@pytest.mark.parametrize(
    ("seconds", "english", "japanese"),
    [
        (0, "0 s ago", "0秒前"),
        (0.4, "in 0 s", "0秒後"),
        (-59.9, "59 s ago", "59秒前"),
        (61, "in 1 min", "1分後"),
        (-3 * 60 - 59, "3 min ago", "3分前"),
        (16 * 3600 + 120, "in 16 h 2 min", "16時間2分後"),
        (-3 * 86400 - 4 * 3600, "3 d 4 h ago", "3日4時間前"),
    ],
)
def test_relative_times(seconds, english, japanese):
    at = NOW.astimezone(UTC) + timedelta(seconds=seconds)
    for locale, expected in ((EN, english), (JA, japanese)):
        assert Words(TEXTS[locale], locale, views.TOKYO, NOW).relative(at) == expected


@pytest.mark.parametrize(
    ("seconds", "japanese"), [(0.004, "4ミリ秒"), (2.84, "2.8秒"), (200, "3分20秒"), (7500, "2時間5分")]
)
def test_japanese_durations(seconds, japanese):
    assert Words(TEXTS[JA], JA, views.TOKYO, NOW).duration(seconds) == japanese


@given(st.text(alphabet="`<>&\"' ab-") | st.text())
@settings(max_examples=100)
def test_commands_are_marked_and_everything_is_escaped(text):
    marked = str(with_commands(text))
    assert re.sub(r"</?(code|span)>", "", marked).count("<") == 0
    assert marked.count("<code>") == len(re.findall(r"`[^`]+`", text))
    page = Page(marked)
    assert set(page.tags) <= {"code", "span"}
    assert page.text == " ".join(re.sub(r"`([^`]+)`", lambda found: f" {found[1]} ", text).split()) or "`" in text


def test_a_command_in_a_reason():
    assert with_commands("run `a b`, or <c>") == "run <code><span>a</span> <span>b</span></code>, or &lt;c&gt;"


# What must not be


def hostile():
    """A view in which whatever comes from outside is meant to break out of the page."""
    view = views.critical()
    known = view.recorded
    recorded = dataclasses.replace(
        known,
        runs=[views.failed(0, HOSTILE)],
        artifacts=[views.artifact(0, name=HOSTILE)],
        drills=[views.drill(0, outcome=Outcome.FAILED, error=HOSTILE)],
        channels=[ChannelState(name=HOSTILE, failing_since=NOW, error=HOSTILE)],
    )
    activity = Activity(trigger=Trigger.CLI, waiting_for=HOSTILE)
    return dataclasses.replace(
        view, recorded=recorded, database=HOSTILE, environment=HOSTILE, source=HOSTILE, root=HOSTILE, notice=HOSTILE,
        version=HOSTILE, backing_up=activity,
    )  # fmt: skip


@pytest.mark.parametrize("locale", Locale)
@pytest.mark.parametrize("make", [hostile, lambda: dataclasses.replace(hostile(), recorded=None, problem=HOSTILE)])
def test_hostile_names_and_errors_stay_text(make, locale):
    harmless, _, _ = page_of(views.critical(), locale)
    page, body, _ = page_of(make(), locale)
    assert not {"script", "b"} & set(page.tags)
    assert page.tags.count("style") == 1
    assert {name for _, name, _ in page.attributes} <= {name for _, name, _ in harmless.attributes} | {"aria-label"}
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7 * 7 }}{% endif %}" in page.text
    assert "&lt;script&gt;" in body


@pytest.mark.parametrize(("make", "locale"), STATES)
def test_the_policy_allows_the_one_style_and_nothing_else(make, locale):
    page, body, policy = page_of(make(), locale)
    style = re.search(r"<style>(.*?)</style>", body, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    assert not {"script", "img", "iframe", "form", "link", "object", "foreignobject", "animate"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name == "style" or name.startswith("on")]
    assert all(value.startswith(("#", "/")) for value in page.values("href"))


def test_no_emoji_and_nothing_by_colour_alone():
    """Each coloured word has a shape beside it, and another one than its opposites."""
    for make, locale in itertools.product(views.STATES.values(), Locale):
        _, body, _ = page_of(make(), locale)
        assert not re.search("[\u2600-\u27bf\ufe0f\U0001f000-\U0001faff]", body)
        for kind, inside in re.findall(r'<span class="marked is-([a-z]+)">\s*(.*?)</span>', body, re.DOTALL):
            assert f'<svg class="symbol is-{kind}"' in inside, kind
    shapes = dict(re.findall(r'"([a-z]+)": "([a-z]+)"', (TEMPLATES / "parts.html").read_text()))
    assert len({shapes[kind] for kind in ENDINGS}) == len(ENDINGS)
    assert len({shapes[state] for state in State}) == len(State)
    assert len({shapes[level] for level in Level}) == len(Level)


def test_charts_tell_their_story_to_those_who_do_not_see_them():
    page, body, _ = page_of(views.warning())
    charts = re.findall(r'<svg class="chart[^>]*role="img" aria-label="([^"]+)"', body)
    assert len(charts) == 3
    assert charts[0].startswith("Outcomes of the runs from 2026-10-24 to 2026-11-22: 29 success")
    assert body.count("<g><title>2026-11-22: success, suspect, 30 MiB, 6.1 s</title>") == 3
    assert page.text.count("Day by day") == 1


def test_nothing_is_loaded_before_somebody_looks():
    program = (
        "import sys, scpln_backup.service.daemon; "
        "print([name for name in ('jinja2', 'markupsafe', 'scpln_backup.service.page.render') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# Colours


def palettes():
    """The colours of the style: the light ones, and the dark ones."""
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    found = [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", part.split("\n* {")[0])) for part in (light, dark)]
    assert found[0].keys() == found[1].keys()
    return found


def contrast(one, other):
    """WCAG 2.2, relative luminance and contrast ratio."""

    def luminance(colour):
        shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast_is_enough_in_both_schemes(scheme):
    """AA: 4.5 to 1 for text, 3 to 1 for what is drawn."""
    colours = palettes()[scheme]
    for ground in ("ground", "card", "hover"):
        for text in ("ink", "quiet", "link"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for level in Level:
        for ground in ("card", f"{level}-ground"):
            assert contrast(colours[level], colours[ground]) >= 4.5, (level, ground)
        for text in ("ink", "quiet"):
            assert contrast(colours[text], colours[f"{level}-ground"]) >= 4.5, (text, level)
        assert contrast(colours[level], colours["hover"]) >= 3
    for ground in ("card", "hover"):
        assert contrast(colours["bar"], colours[ground]) >= (3 if ground == "card" else 2.5)


def test_a_reason_without_words_of_ours_is_shown_as_it_is():
    view = views.view(health=Health(Level.CRITICAL, (Reason("the disk <is> gone", "ディスクがない"),), overdue=False))
    assert "the disk <is> gone" in said(view)
    assert "ディスクがない" in said(view, JA)
