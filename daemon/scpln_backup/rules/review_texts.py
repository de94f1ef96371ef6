"""The words of a monthly review, in Japanese and in English."""
# ruff: noqa: RUF001 - full-width punctuation is how Japanese is written

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scpln_backup.model import Outcome, RestoreOutcome, Trigger
from scpln_backup.rules.review import Act, Told, Trouble

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class Texts:
    """One language. What has braces is a format string; the fields of the same text are the same in both.

    `units` are those of support.text.human_duration.
    """

    title: str
    month: str
    period: str
    made: str
    partial: str
    colon: str
    separator: str
    none: str
    unknown: str
    units: Mapping[str, str]
    unit_space: str
    unit_gap: str

    follow_up: str
    nothing: str
    things: str
    todo_unticketed: str
    todo_unticketed_more: str
    todo_missed: str
    todo_gap: str
    todo_no_backup: str
    todo_no_drill: str
    todo_drill_failed: str
    todo_restore: str
    todo_incident_open: str
    todo_incident_late: str
    todo_chain: str
    todo_chain_more: str
    todo_log_begins: str
    todo_no_log: str
    todo_disagreement: str
    and_more: str

    runs: str
    trigger: str
    total: str
    before: str
    no_runs: str
    not_good: str
    started: str
    outcome: str
    why: str
    tickets: str
    no_ticket: str
    interrupted: str

    figures: str
    figure: str
    this_month: str
    change: str
    median_seconds: str
    longest_seconds: str
    longest_blocked: str
    median_raw: str
    last_raw: str
    median_artifact: str
    restore_seconds: str

    gaps: str
    longest_gap: str
    longest_gap_open: str
    slots: str
    slots_missed: str

    drills: str
    no_drills: str
    measured: str
    restore_time: str
    smoke_test: str

    restores: str
    no_restores: str
    user: str
    artifact: str
    lost_rows: str
    incident: str
    opened: str
    deadline: str
    closed: str
    not_closed: str
    kept: str
    late: str

    by_hand: str
    nothing_by_hand: str
    at: str
    who: str
    what: str
    detail: str
    somebody: str

    deletions: str
    no_deletions: str
    count: str
    reason: str
    names: str

    besides: str
    daemon_starts: str

    log: str
    log_whole: str
    log_broken: str
    log_end: str
    log_empty: str
    disagreement: str
    in_catalog: str
    in_log: str
    not_there: str

    triggers: Mapping[Trigger, str]
    outcomes: Mapping[Outcome, str]
    restore_outcomes: Mapping[RestoreOutcome, str]
    acts: Mapping[Act, str]
    troubles: Mapping[Trouble, str]
    told: Mapping[Told, str]


ENGLISH = Texts(
    title="Review of {month}: {database} ({environment})",
    month="{year}-{number}",
    period="From {begin} to {end} ({zone}), host {host}.",
    made="Made {at} by scpln-backup, from its catalog and its audit log.",
    partial="The month is not over: this is how it stands.",
    colon=": ",
    separator=", ",
    none="none",
    unknown="unknown",
    units={"ms": "ms", "s": "s", "min": "min", "h": "h", "d": "d"},
    unit_space=" ",
    unit_gap=" ",
    follow_up="To follow up",
    nothing="Nothing.",
    things="{count} to follow up:",
    todo_unticketed="The failed run of {at} has no ticket: {error}",
    todo_unticketed_more="{count} more failed runs without a ticket",
    todo_missed="No run at all for {count} of {slots} scheduled times: {at}",
    todo_gap="{duration} without a good backup, from {begin} to {end}; {hours} hours are allowed",
    todo_no_backup="Not one good backup",
    todo_no_drill="No drill has passed this month: nobody has shown that a restore works",
    todo_drill_failed="The last drill, of {at}, failed: {error}",
    todo_restore="The restore of {at} ended as {outcome}: {error}",
    todo_incident_open="Incident {id} is open and past its deadline, {deadline}",
    todo_incident_late="Incident {id} was closed {late} after its deadline",
    todo_chain="The audit log is not as it was written: {problem}",
    todo_chain_more="{count} more such places in the audit log",
    todo_log_begins="The audit log begins at {at} only: what was before it is not in it",
    todo_no_log="The audit log could not be checked: {problem}",
    todo_disagreement="Places where catalog and audit log disagree: {count}, see below",
    and_more="{count} more",
    runs="Runs",
    trigger="Asked for by",
    total="Total",
    before="Month before",
    no_runs="There were no runs.",
    not_good="Runs that were not a plain success",
    started="Started",
    outcome="Outcome",
    why="What it said",
    tickets="Tickets",
    no_ticket="**none**",
    interrupted="interrupted",
    figures="Durations and sizes",
    figure="Of the good runs",
    this_month="This month",
    change="Change",
    median_seconds="Duration, median",
    longest_seconds="Duration, longest",
    longest_blocked="Writers waited, at most",
    median_raw="Database, median",
    last_raw="Database, last",
    median_artifact="Artifact, median",
    restore_seconds="Restore in drills, longest",
    gaps="Gaps",
    longest_gap="Longest time between two good backups: {duration}, from {begin} to {end}",
    longest_gap_open="Longest time without a good backup: {duration}, since {begin}",
    slots="Scheduled times without any run: none of {slots}",
    slots_missed="Scheduled times without any run: {count} of {slots}, namely {at}",
    drills="Drills and recovery time",
    no_drills="There was no drill.",
    measured="A restore took {duration} at the longest, from the artifact to a checked database.",
    restore_time="Restore time",
    smoke_test="Smoke test",
    restores="Restores and incidents",
    no_restores="There was no restore.",
    user="By",
    artifact="Artifact",
    lost_rows="Rows lost",
    incident="Incident",
    opened="Opened",
    deadline="Deadline",
    closed="Closed",
    not_closed="open",
    kept="in time",
    late="{late} late",
    by_hand="Done by hand",
    nothing_by_hand="Nothing.",
    at="When",
    who="Who",
    what="What",
    detail="Detail",
    somebody="(a signal)",
    deletions="Deleted by retention",
    no_deletions="Nothing.",
    count="Number",
    reason="Reason",
    names="First to last",
    besides="Besides",
    daemon_starts="The daemon was started {count} times.",
    log="Audit log",
    log_whole="Lines {first} to {last}, since {at}: all as they were written, none missing ({checked} checked).",
    log_broken="Lines {first} to {last}, since {at}: **not as they were written** ({checked} are):",
    log_end="The hash of its last line now, {seq}: {hash}. Whoever keeps this review can prove what stood up to there.",
    log_empty="There is no audit log yet.",
    disagreement="Where catalog and audit log disagree",
    in_catalog="Catalog",
    in_log="Audit log",
    not_there="not there",
    triggers={
        Trigger.SCHEDULE: "schedule",
        Trigger.CATCH_UP: "catch-up",
        Trigger.SIGNAL: "signal",
        Trigger.CLI: "command line",
    },
    outcomes={
        Outcome.SUCCESS: "success",
        Outcome.DEGRADED: "degraded",
        Outcome.SUSPECT: "suspect",
        Outcome.FAILED: "failed",
    },
    restore_outcomes={
        RestoreOutcome.SUCCESS: "success",
        RestoreOutcome.FAILED: "failed",
        RestoreOutcome.ROLLED_BACK: "rolled back",
        RestoreOutcome.ABORTED: "aborted",
    },
    acts={
        Act.RUN: "backup",
        Act.DRILL: "drill",
        Act.RESTORE: "restore",
        Act.REBUILD: "rebuild",
        Act.INCIDENT: "incident closed",
        Act.PIN: "pinned",
        Act.UNPIN: "unpinned",
        Act.REQUEST: "backup asked for",
        Act.ACCEPT_SHRINK: "shrink accepted",
        Act.SWEEP: "sweep",
        Act.RELOAD: "configuration reloaded",
    },
    troubles={
        Trouble.CORRUPT: "An artifact was found corrupt",
        Trouble.OVERDUE: "The backup was overdue",
        Trouble.CONFIG_REFUSED: "A new configuration was refused",
        Trouble.SERVICE_FAILED: "The service failed",
        Trouble.RETENTION_FROZEN: "Retention was frozen",
    },
    told={Told.RUN: "Run", Told.DRILL: "Drill", Told.RESTORE: "Restore"},
)

JAPANESE = Texts(
    title="月次レビュー {month}：{database}（{environment}）",
    month="{year}年{number}月",
    period="対象期間：{begin} 〜 {end}（{zone}）、ホスト：{host}",
    made="作成：{at}。scpln-backup のカタログと監査ログから作成しています。",
    partial="対象月はまだ終わっていません。現時点までの状況です。",
    colon="：",
    separator="、",
    none="なし",
    unknown="不明",
    units={"ms": "ミリ秒", "s": "秒", "min": "分", "h": "時間", "d": "日"},
    unit_space="",
    unit_gap="",
    follow_up="要対応事項",
    nothing="ありません。",
    things="{count}件あります。",
    todo_unticketed="{at} の失敗にチケットがありません：{error}",
    todo_unticketed_more="このほか{count}件の失敗にチケットがありません",
    todo_missed="定時バックアップ{slots}回のうち{count}回が実行されていません：{at}",
    todo_gap="正常なバックアップのない時間が{duration}続きました（{begin} 〜 {end}、許容は{hours}時間）",
    todo_no_backup="正常なバックアップが一度も取得されていません",
    todo_no_drill="リストア訓練が一度も成功していません。リストアできることが確認できていません",
    todo_drill_failed="最後のリストア訓練（{at}）が失敗しています：{error}",
    todo_restore="{at} のリストアは「{outcome}」で終了しました：{error}",
    todo_incident_open="インシデント #{id} が期限（{deadline}）を過ぎても未クローズです",
    todo_incident_late="インシデント #{id} のクローズが期限を{late}過ぎました",
    todo_chain="監査ログが書き込み時の内容と異なります：{problem}",
    todo_chain_more="監査ログには、このほか{count}か所の相違があります",
    todo_log_begins="監査ログは {at} 以降の分しかありません。それ以前の記録は確認できません",
    todo_no_log="監査ログを検査できませんでした：{problem}",
    todo_disagreement="カタログと監査ログの記録が{count}件食い違っています（下記参照）",
    and_more="ほか{count}件",
    runs="実行結果",
    trigger="起動",
    total="合計",
    before="前月",
    no_runs="実行はありませんでした。",
    not_good="成功以外の実行",
    started="開始",
    outcome="結果",
    why="内容",
    tickets="チケット",
    no_ticket="**なし**",
    interrupted="中断",
    figures="所要時間とサイズ",
    figure="正常な実行について",
    this_month="当月",
    change="増減",
    median_seconds="所要時間（中央値）",
    longest_seconds="所要時間（最長）",
    longest_blocked="書き込みの待ち（最大）",
    median_raw="データベース（中央値）",
    last_raw="データベース（月末）",
    median_artifact="バックアップファイル（中央値）",
    restore_seconds="訓練でのリストア時間（最長）",
    gaps="バックアップの間隔",
    longest_gap="正常なバックアップの最長間隔：{duration}（{begin} 〜 {end}）",
    longest_gap_open="正常なバックアップのない最長時間：{duration}（{begin} 以降）",
    slots="実行されなかった定時：{slots}回中 なし",
    slots_missed="実行されなかった定時：{slots}回中 {count}回（{at}）",
    drills="リストア訓練と復旧時間",
    no_drills="リストア訓練は行われませんでした。",
    measured="バックアップから検査済みデータベースまでのリストア時間は、最長で{duration}でした。",
    restore_time="リストア時間",
    smoke_test="スモークテスト",
    restores="リストアとインシデント",
    no_restores="リストアはありませんでした。",
    user="実施者",
    artifact="バックアップ",
    lost_rows="失われた件数",
    incident="インシデント",
    opened="登録",
    deadline="期限",
    closed="クローズ",
    not_closed="未クローズ",
    kept="期限内",
    late="{late}超過",
    by_hand="手動操作",
    nothing_by_hand="手動操作はありませんでした。",
    at="日時",
    who="実施者",
    what="操作",
    detail="詳細",
    somebody="（シグナル）",
    deletions="保持期間による削除",
    no_deletions="削除はありませんでした。",
    count="件数",
    reason="理由",
    names="対象（最初 〜 最後）",
    besides="その他の記録",
    daemon_starts="デーモンの起動：{count}回",
    log="監査ログ",
    log_whole="{at} 以降の記録（連番 {first}〜{last}、{checked}件を検査）：改変・欠落はありません。",
    log_broken="{at} 以降の記録（連番 {first}〜{last}）：**書き込み時の内容と異なります**（正常な記録：{checked}件）",
    log_end=(
        "現在の末尾（連番 {seq}）のハッシュ：{hash}。このレビューを控えておけば、ここまでの記録に改変がないことを"
        "後から確認できます。"
    ),
    log_empty="監査ログはまだありません。",
    disagreement="カタログと監査ログの食い違い",
    in_catalog="カタログ",
    in_log="監査ログ",
    not_there="記録なし",
    triggers={
        Trigger.SCHEDULE: "定時",
        Trigger.CATCH_UP: "遅延実行",
        Trigger.SIGNAL: "シグナル",
        Trigger.CLI: "コマンド",
    },
    outcomes={
        Outcome.SUCCESS: "成功",
        Outcome.DEGRADED: "一部失敗",
        Outcome.SUSPECT: "要確認",
        Outcome.FAILED: "失敗",
    },
    restore_outcomes={
        RestoreOutcome.SUCCESS: "成功",
        RestoreOutcome.FAILED: "失敗",
        RestoreOutcome.ROLLED_BACK: "切り戻し",
        RestoreOutcome.ABORTED: "中止",
    },
    acts={
        Act.RUN: "バックアップ",
        Act.DRILL: "リストア訓練",
        Act.RESTORE: "リストア",
        Act.REBUILD: "データの再構築",
        Act.INCIDENT: "インシデントのクローズ",
        Act.PIN: "保護の設定",
        Act.UNPIN: "保護の解除",
        Act.REQUEST: "バックアップの実行依頼",
        Act.ACCEPT_SHRINK: "縮小の承認",
        Act.SWEEP: "古いバックアップの削除",
        Act.RELOAD: "設定の再読み込み",
    },
    troubles={
        Trouble.CORRUPT: "バックアップの破損を検出",
        Trouble.OVERDUE: "バックアップの期限超過",
        Trouble.CONFIG_REFUSED: "新しい設定の拒否",
        Trouble.SERVICE_FAILED: "サービスの異常終了",
        Trouble.RETENTION_FROZEN: "自動削除の停止",
    },
    told={Told.RUN: "バックアップ", Told.DRILL: "リストア訓練", Told.RESTORE: "リストア"},
)

TEXTS: Mapping[str, Texts] = {"en": ENGLISH, "ja": JAPANESE}
