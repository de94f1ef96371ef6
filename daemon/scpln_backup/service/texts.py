"""The words of the status page, in the languages of [locale]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scpln_backup.config.schema import Locale
from scpln_backup.model import Trigger
from scpln_backup.rules.health import Level

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class Texts:
    """One language. `counts`, `suspect` and `corrupt` are format strings; `outcomes` are CSS classes too."""

    title: str
    overview: str
    last_success: str
    next_run: str
    never: str
    none: str
    overdue: str
    artifacts: str
    counts: str
    suspect: str
    corrupt: str
    source: str
    root: str
    runs: str
    no_runs: str
    started: str
    outcome: str
    trigger: str
    duration: str
    size: str
    artifact: str
    health: Mapping[Level, str]
    outcomes: Mapping[str, str]
    triggers: Mapping[Trigger, str]


ENGLISH = Texts(
    title="Backups",
    overview="Overview",
    last_success="Last good backup",
    next_run="Next run",
    never="never",
    none="none planned",
    overdue="(overdue)",
    artifacts="Artifacts",
    counts="{count}, {verified} verified, {bytes}",
    suspect="{count} suspect",
    corrupt="{count} corrupt",
    source="Database",
    root="Backup folder",
    runs="Last runs",
    no_runs="No run yet.",
    started="Started",
    outcome="Outcome",
    trigger="Asked for by",
    duration="Took",
    size="Size",
    artifact="Artifact",
    health={Level.HEALTHY: "Healthy", Level.WARNING: "Warning", Level.CRITICAL: "Critical"},
    outcomes={
        "success": "success",
        "degraded": "degraded",
        "suspect": "suspect",
        "failed": "failed",
        "interrupted": "interrupted",
    },
    triggers={
        Trigger.SCHEDULE: "schedule",
        Trigger.CATCH_UP: "catch-up",
        Trigger.SIGNAL: "signal",
        Trigger.CLI: "command line",
    },
)

JAPANESE = Texts(
    title="バックアップ",
    overview="概要",
    last_success="最後に成功したバックアップ",
    next_run="次回の実行",
    never="なし",
    none="予定なし",
    overdue="（期限超過）",  # noqa: RUF001 - full-width parentheses are Japanese punctuation
    artifacts="保管中のファイル",
    counts="{count} 件（検証済み {verified} 件）、{bytes}",  # noqa: RUF001 - Japanese punctuation
    suspect="要確認 {count} 件",
    corrupt="破損 {count} 件",
    source="データベース",
    root="保管先",
    runs="最近の実行",
    no_runs="まだ実行されていません。",
    started="開始",
    outcome="結果",
    trigger="起動",
    duration="所要時間",
    size="サイズ",
    artifact="ファイル",
    health={Level.HEALTHY: "正常", Level.WARNING: "注意", Level.CRITICAL: "異常"},
    outcomes={
        "success": "成功",
        "degraded": "一部失敗",
        "suspect": "要確認",
        "failed": "失敗",
        "interrupted": "中断",
    },
    triggers={
        Trigger.SCHEDULE: "定時",
        Trigger.CATCH_UP: "遅延実行",
        Trigger.SIGNAL: "シグナル",
        Trigger.CLI: "コマンド",
    },
)

TEXTS: Mapping[Locale, Texts] = {Locale.EN: ENGLISH, Locale.JA: JAPANESE}
