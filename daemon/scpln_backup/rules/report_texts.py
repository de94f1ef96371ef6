"""The words of an incident report, in Japanese and in English."""
# ruff: noqa: RUF001 - full-width punctuation is how Japanese is written

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scpln_backup.model import Outcome, RestoreOutcome

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class Texts:
    """One language. What has braces is a format string.

    `units` are days, hours, minutes and seconds. `steps` are the steps of operations/restore by how their names
    begin; one that is not in it keeps its own name.
    """

    title: str
    draft: str
    to_write: str
    scope_wanted: str
    prevention_wanted: str
    bracketed: str
    colon: str

    item: str
    content: str
    database: str
    restored_from: str
    taken_at: str
    sha256: str
    outcome: str
    user: str
    set_aside: str
    nothing_set_aside: str
    error: str
    unknown: str

    recovery: str
    service_up: str
    service_down_for: str
    closed: str
    not_closed: str
    deadline: str
    met: str
    missed: str
    pending: str
    overdue: str
    counted: str
    after_start: str

    scope: str
    loss: str
    loss_unknown: str
    other_tables: str
    table: str
    before: str
    after: str
    lost: str
    newest_before: str
    newest_after: str

    rebuild: str
    no_rebuild: str
    rebuild_since: str
    started: str
    took: str
    exit_code: str
    output: str

    prevention: str

    timeline: str
    time: str
    event: str
    detail: str
    restore_started: str
    restore_ended: str
    opened: str
    rebuild_started: str
    rebuild_ended: str
    running: str

    units: tuple[str, str, str, str]
    unit_gap: str
    outcomes: Mapping[str, str]
    steps: Mapping[str, str]


ENGLISH = Texts(
    title="Incident report {id}: restore of {database} ({environment})",
    draft="Drafted by scpln-backup from its records. Lines marked {mark} are for people to fill in.",
    to_write="[TO BE WRITTEN]",
    scope_wanted="Who and what was affected, and from when to when",
    prevention_wanted="The cause, and what is done so that it does not happen again: by whom, by when",
    bracketed=" ({})",
    colon=": ",
    item="Item",
    content="Content",
    database="Database",
    restored_from="Restored from",
    taken_at="taken {}",
    sha256="SHA-256",
    outcome="Outcome",
    user="Restored by",
    set_aside="Old database kept in",
    nothing_set_aside="there was none",
    error="Error",
    unknown="unknown",
    recovery="Recovery time",
    service_up="Service running again",
    service_down_for="Service was stopped for",
    closed="Incident closed",
    not_closed="not yet",
    deadline="Deadline, 24 hours after the restore began",
    met="met, {} before it",
    missed="missed by {}",
    pending="not closed yet",
    overdue="passed, and not closed yet",
    counted="Counted from the start of the restore; when the failure itself began is not recorded.",
    after_start="{} after the restore began",
    scope="Scope",
    loss="Data lost",
    loss_unknown="What was lost was not measured.",
    other_tables="Tables that have the rows and the newest time they had: {}.",
    table="Table",
    before="Rows before",
    after="Rows after",
    lost="Lost",
    newest_before="Newest before",
    newest_after="Newest after",
    rebuild="Rebuild",
    no_rebuild="The rebuild script was not run.",
    rebuild_since="To rebuild: {command}",
    started="Started",
    took="Took",
    exit_code="Exit code",
    output="Output",
    prevention="Prevention",
    timeline="Timeline",
    time="Time",
    event="Event",
    detail="Detail",
    restore_started="Restore started",
    restore_ended="Restore ended: {}",
    opened="Incident opened",
    rebuild_started="Rebuild started",
    rebuild_ended="Rebuild ended: {}",
    running="not ended",
    units=(" d", " h", " min", " s"),
    unit_gap=" ",
    outcomes={
        RestoreOutcome.SUCCESS: "success",
        RestoreOutcome.FAILED: "failed",
        RestoreOutcome.ROLLED_BACK: "rolled back, the old database is in place",
        RestoreOutcome.ABORTED: "aborted",
        Outcome.DEGRADED: "degraded",
        Outcome.SUSPECT: "suspect",
    },
    steps={},
)

JAPANESE = Texts(
    title="障害報告 #{id}：{database}（{environment}）のリストア",
    draft="scpln-backup の記録から作成した下書きです。{mark} の箇所は担当者が記入してください。",
    to_write="【要記入】",
    scope_wanted="影響を受けた利用者・業務・期間",
    prevention_wanted="原因と、再発を防ぐための対策（担当者・期限）",
    bracketed="（{}）",
    colon="：",
    item="項目",
    content="内容",
    database="対象データベース",
    restored_from="使用したバックアップ",
    taken_at="{} 取得",
    sha256="SHA-256",
    outcome="結果",
    user="実施者",
    set_aside="旧データベースの退避先",
    nothing_set_aside="退避対象なし",
    error="エラー",
    unknown="不明",
    recovery="復旧時間",
    service_up="サービス再開",
    service_down_for="サービス停止時間",
    closed="インシデントのクローズ",
    not_closed="未クローズ",
    deadline="期限（リストア開始から24時間以内）",
    met="期限内に完了、残り {}",
    missed="期限を {} 超過",
    pending="対応中",
    overdue="期限超過、未クローズ",
    counted="経過時間はリストア開始から起算しています。障害そのものの発生時刻は記録されていません。",
    after_start="リストア開始から {}",
    scope="影響範囲",
    loss="データの欠損",
    loss_unknown="欠損の範囲は測定されていません。",
    other_tables="このほか {} テーブルは、件数・最新日時とも差がありません。",
    table="テーブル",
    before="リストア前の件数",
    after="リストア後の件数",
    lost="失われた件数",
    newest_before="リストア前の最新日時",
    newest_after="リストア後の最新日時",
    rebuild="データの再構築",
    no_rebuild="再構築スクリプトは実行されていません。",
    rebuild_since="再構築コマンド：{command}",
    started="開始",
    took="所要時間",
    exit_code="終了コード",
    output="出力",
    prevention="再発防止",
    timeline="経過",
    time="時刻",
    event="内容",
    detail="詳細",
    restore_started="リストア開始",
    restore_ended="リストア終了：{}",
    opened="インシデント登録",
    rebuild_started="再構築開始",
    rebuild_ended="再構築終了：{}",
    running="未終了",
    units=("日", "時間", "分", "秒"),
    unit_gap="",
    outcomes={
        RestoreOutcome.SUCCESS: "成功",
        RestoreOutcome.FAILED: "失敗",
        RestoreOutcome.ROLLED_BACK: "切り戻し（旧データベースで稼働）",
        RestoreOutcome.ABORTED: "中止",
        Outcome.DEGRADED: "一部失敗",
        Outcome.SUSPECT: "要確認",
    },
    steps={
        "decompress and check": "バックアップの展開と検査",
        "stop": "サービス停止",
        "set the old database aside in": "旧データベースの退避",
        "work the old database's journal into it": "旧データベースへのジャーナルの反映",
        "put the restored database in its place": "データベースの差し替え",
        "check it in its place": "差し替え後の検査",
        "start": "サービス起動",
        "health probe": "稼働確認",
        "put the old database back": "旧データベースへの切り戻し",
    },
)

TEXTS: Mapping[str, Texts] = {"en": ENGLISH, "ja": JAPANESE}
