"""What messages say, in Japanese: headlines end in a noun, sentences are in the polite form."""
# ruff: noqa: RUF001 - full-width punctuation is how Japanese is written

from __future__ import annotations

from scpln_backup.model import RestoreOutcome, Trigger
from scpln_backup.observers.wording.texts import (
    ArtifactTexts,
    DigestTexts,
    DrillTexts,
    IncidentTexts,
    Labels,
    RestoreTexts,
    RunTexts,
    ServiceTexts,
    Texts,
)
from scpln_backup.rules.report import Part

_LABELS = Labels(
    began="開始",
    size="サイズ",
    duration="所要時間",
    writers="書き込みの待ち",
    unchanged="データベース変更なし（流用元）",
    trigger="起動",
    next_run="次回の実行",
    page="ステータスページ",
    artifact="バックアップ",
    taken="取得日時",
    target="対象データベース",
    user="実施者",
    restore_time="リストア所要時間",
    smoke_test="スモークテスト",
    output="出力",
    set_aside="旧データベースの退避先",
    opened="登録",
    due="報告期限",
    closed="クローズ",
    whole="全文",
    host="ホスト",
    unit="ユニット",
    version="バージョン",
)

_RUN = RunTexts(
    what_success="バックアップ成功（{size}、{duration}）",
    what_recovered="バックアップ復旧（{size}、{duration}）",
    what_degraded="バックアップ作成済み、後続処理の失敗",
    what_suspect="バックアップ要確認、データベースの縮小を検知",
    what_failed="バックアップ失敗（{error}）",
    what_interrupted="バックアップ中断",
    what_overdue="バックアップ期限超過（{hours}時間以上成功なし）",
    failures_over="{since} から{runs}続けて正常に完了していませんでしたが、今回は成功しました。",
    gap_over="バックアップの取得が再開しました。",
    gap_over_since="バックアップの取得が再開しました。前回の正常なバックアップは {since} のものです。",
    degraded="バックアップ自体は正常で、検証済みです（リストア可能）。その後の処理で失敗しました：{error}",
    degraded_do=(
        "急ぎではありませんが、原因を取り除いてください。次の実行が成功すれば解消します（すぐに実行する場合："
        "`scpln-backup backup --wait`）。"
    ),
    shrank="縮小の内容：{error}",
    suspect="コピー自体は正常で、保管されています。ただし検証済みには数えず、判断が済むまで古いバックアップの自動削除を停止します。",
    suspect_meant=(
        "意図した削除（データ整理、移行など）の場合は、`scpln-backup verify {name} --accept-shrink` の後、"
        "`scpln-backup backup --wait` を実行してください。"
    ),
    suspect_not_meant="意図しない場合は、稼働中のデータベースでデータが失われています。次の実行までに原因を確認してください。",
    suspect_restore=(
        "意図しない場合は、稼働中のデータベースでデータが失われています。正常なバックアップを保護し"
        "（`scpln-backup pin {good}`）、リストアしてください（`scpln-backup restore {good}`）。"
    ),
    in_a_row="{since} から{runs}続けて正常に完了していません。",
    failed_do=(
        "`journalctl -u scpln-backup -e` で原因を確認し、対処後に `scpln-backup backup --wait` を実行してください。"
        "次に成功するまで、古いバックアップは削除されません。"
    ),
    interrupted="実行が完了前に停止または強制終了されました。作りかけのファイルは残っていません。既存のバックアップに影響はありません。",
    interrupted_do=(
        "定時実行分はサービスの起動時に自動で再実行されます。すぐに取得する場合は `scpln-backup backup --wait` を"
        "実行してください。"
    ),
    overdue="最後の正常終了は {since} で、次のバックアップの期限は {deadline} でした。",
    overdue_never="{since} の導入以来、一度も正常に完了していません。最初のバックアップの期限は {deadline} でした。",
    overdue_do=(
        "サービスの稼働を `systemctl status scpln-backup` で確認してください。原因は `scpln-backup status` と "
        "`journalctl -u scpln-backup -e` で確認し、対処後に `scpln-backup backup --wait` を実行してください。"
    ),
)

_SERVICE = ServiceTexts(
    what_failed="バックアップサービスの停止（異常終了）",
    what_runs_again="バックアップサービスの復旧",
    what_started="バックアップサービスの起動",
    failed="systemd による自動再起動も停止しています。手動で起動するまでバックアップは実行されません。",
    failed_do=(
        "`journalctl -u {unit} -e` で原因を確認し、対処後に `systemctl reset-failed {unit}`、"
        "`systemctl start {unit}` の順に実行してください。"
    ),
    runs_again="停止中に実行できなかったバックアップは自動で実行されます（`[schedule] catch_up` が有効な場合）。",
)

_ARTIFACT = ArtifactTexts(
    what_corrupt="バックアップの破損（{name}）",
    what_sound="バックアップ正常（{name}）",
    what_deleted="バックアップ削除（{name}）",
    corrupt_do=(
        "至急 `scpln-backup backup --wait` で新しいバックアップを取得してください。その後、破損したファイルと"
        "付属ファイルを別のディレクトリへ移動し、`scpln-backup verify` を実行してください。"
    ),
    corrupt_more=(
        "ほかにも破損がないか `scpln-backup verify --all` で確認してください。複数ある場合はディスク障害を"
        "疑ってください（`journalctl -k`）。"
    ),
    sound="全体を読み直し、正常であることを確認しました。",
    deleted="理由：{reason}",
    deleted_over="{since} に破損として通知したバックアップです。削除により、この件は解消しました。",
)

_DRILL = DrillTexts(
    what_passed="リストア訓練成功（所要 {duration}）",
    what_recovered="リストア訓練復旧（所要 {duration}）",
    what_degraded="リストア訓練成功、付随処理の失敗",
    what_failed="リストア訓練失敗（{error}）",
    passed="バックアップを作業用ディレクトリにリストアし、検査しました。稼働中のデータベースには触れていません。",
    failed="稼働中のデータベースには影響ありません。ただし、次に訓練が成功するまで、最後までリストアできる保証がありません。",
    failed_do="対処後に `scpln-backup drill` を実行してください。",
    smoke_passed="成功",
    smoke_failed="終了コード {code}",
    smoke_none="未実施",
)

_RESTORE = RestoreTexts(
    what_started="リストア開始",
    what_ended={
        RestoreOutcome.SUCCESS: "リストア完了",
        RestoreOutcome.FAILED: "リストア失敗",
        RestoreOutcome.ROLLED_BACK: "リストア失敗、旧データベースへの切り戻し完了",
        RestoreOutcome.ABORTED: "リストア中止、旧データベースで稼働",
    },
    started="アプリケーションを停止し、データベースを差し替えます。終了時に改めてお知らせします。",
    broken_off=(
        "続報がない場合は中断した可能性があります。続行は `scpln-backup restore --resume`、元に戻す場合は "
        "`scpln-backup restore --abort` です。"
    ),
    rebuild="欠損分の再構築：`scpln-backup rebuild --since {since}`",
    old_in_place=(
        "旧データベースは元の状態のままです。再度実行する前に、`scpln-backup restore --dry-run` で問題がないか"
        "確認してください。"
    ),
    look_at_error=(
        "データベースの現状はエラーに記載のとおりです。経過は `journalctl -u scpln-backup -e` で確認してください。"
        "旧データベースにまだ戻っていない場合は `scpln-backup restore --abort` で戻せます。"
    ),
)

_INCIDENT = IncidentTexts(
    what_opened="インシデント #{id} 登録、報告期限 {due}",
    what_overdue="インシデント #{id} 報告期限超過",
    what_closed="インシデント #{id} クローズ",
    opened="リストアに伴いインシデントを登録しました。24時間以内に欠損分を再構築し、報告を完成させてください。",
    opened_do="現状と次の作業は `scpln-backup incident show {id}` で確認できます。",
    overdue="報告の期限は {due} でした。未記入の項目：{parts}",
    overdue_do=(
        "`scpln-backup incident note {id} --scope TEXT --prevention TEXT` で記入し、"
        "`scpln-backup incident close {id}` でクローズしてください。"
    ),
    closed="期限内の {at} にクローズしました。復旧時間・影響範囲・再発防止を報告します。",
    closed_late="期限を{late}過ぎ、{at} にクローズしました。復旧時間・影響範囲・再発防止を報告します。",
    parts={Part.SCOPE: "影響範囲", Part.PREVENTION: "再発防止"},
)

_DIGEST = DigestTexts(
    what="{since} 以降の通知{count}件",
    intro="発生時に個別に送信できなかったため、まとめてお知らせします。",
    grave="うち{count}件は異常に関する通知です（先頭に記載）。",
    line="{at} {what}",
    whole="`scpln-backup audit show`",
)

JAPANESE = Texts(
    headline="{database}（{environment}）：{what}",
    error="エラー：{error}",
    no_error="理由の記録なし、ログを参照",
    separator="、",
    within="（{}）",
    units={"ms": "ミリ秒", "s": "秒", "min": "分", "h": "時間", "d": "日"},
    unit_space="",
    unit_gap="",
    against="直近{count}回比 {change} %",
    against_one="前回比 {change} %",
    one_run="1回",
    many_runs="{count}回",
    from_database="元のサイズ {size}",
    at_most="最大 {duration}",
    none_planned="予定なし（`scpln-backup status`）",
    last_good="最後の正常なバックアップ：{name}（{at} 取得、{age}前）",
    no_good="検証済みのバックアップが確認できません（`scpln-backup list`）。",
    triggers={
        Trigger.SCHEDULE: "定時",
        Trigger.CATCH_UP: "遅延実行",
        Trigger.SIGNAL: "シグナル",
        Trigger.CLI: "コマンド",
    },
    month="{year}年{month}月",
    review_what="{month}の月次レビュー",
    review="{month}のバックアップ実施状況です。内容を確認し、失敗への対応をお願いします。",
    review_unticketed="チケットのない失敗が{count}件あります（{runs}）。",
    test_what="テスト通知",
    test="{user} によるテスト送信です。異常はありません。このデータベースの通知はここに届きます。",
    test_over="テスト送信の終了通知です。異常はありません。",
    other_what="{kind}",
    shortened="文字数の上限を超えるため、以下を省略しました。全文は「全文」欄の場所にあります。",
    labels=_LABELS,
    run=_RUN,
    service=_SERVICE,
    artifact=_ARTIFACT,
    drill=_DRILL,
    restore=_RESTORE,
    incident=_INCIDENT,
    digest=_DIGEST,
)
