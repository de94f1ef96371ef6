"""Why the backups are not healthy, and what to do about it: each reason in English and in Japanese.

Metrics, logs, `status` and /healthz tell the English sentence, the page that of its reader. What a program said (the
error of a run) is quoted as it is. Commands stand between backticks.
"""
# ruff: noqa: RUF001 - full-width punctuation is how Japanese is written

from __future__ import annotations

import msgspec


class Reason(msgspec.Struct, frozen=True):
    """One reason, on one line in each language."""

    english: str
    japanese: str


def no_success(since: str, hours: int) -> Reason:
    return Reason(
        f"no backup has succeeded since {since}, more than {hours} hours ago: "
        "see why in `journalctl -u scpln-backup`, then run `scpln-backup backup`",
        f"{since} を最後に、{hours}時間以上、正常なバックアップがありません。"
        "`journalctl -u scpln-backup` で原因を確認し、`scpln-backup backup` を実行してください",
    )


def no_success_ever(installed_at: str, hours: int) -> Reason:
    return Reason(
        f"no backup has succeeded since the installation at {installed_at}, more than {hours} hours ago: "
        "see why in `journalctl -u scpln-backup`, then run `scpln-backup backup`",
        f"導入（{installed_at}）から{hours}時間以上、正常なバックアップが一度もありません。"
        "`journalctl -u scpln-backup` で原因を確認し、`scpln-backup backup` を実行してください",
    )


def source_missing(path: str) -> Reason:
    return Reason(
        f"there is no database at {path}: check [database] path and SCPLN_DB, or restore it: `scpln-backup restore`",
        f"データベース {path} がありません。[database] path と SCPLN_DB を確認するか、"
        "`scpln-backup restore` でリストアしてください",
    )


def run_interrupted(at: str) -> Reason:
    return Reason(
        f"the run of {at} was interrupted: run `scpln-backup backup`",
        f"{at} の実行が中断されました。`scpln-backup backup` を実行してください",
    )


def run_failed(at: str, said: str | None) -> Reason:
    english, japanese = _quoted(said)
    return Reason(f"the run of {at} failed: {english}", f"{at} の実行が失敗しました: {japanese}")


def run_suspect(at: str, said: str | None, artifact: str | None) -> Reason:
    english, japanese = _quoted(said)
    accept = f"`scpln-backup verify {artifact} --accept-shrink`"
    return Reason(
        f"the run of {at} is suspect: {english}; if that was meant: {accept}, then `scpln-backup backup`",
        f"{at} のバックアップは要確認です: {japanese}。"
        f"意図した縮小であれば {accept} の後、`scpln-backup backup` を実行してください",
    )


def run_degraded(at: str, said: str | None) -> Reason:
    english, japanese = _quoted(said)
    return Reason(
        f"the run of {at} made a good artifact, but a later step failed: {english}",
        f"{at} のバックアップは正常ですが、後続の処理が失敗しました: {japanese}",
    )


def not_begun(problem: str) -> Reason:
    """`problem` is a whole sentence of this program, in English, about a run that could not even begin."""
    return Reason(problem, f"バックアップを実行できませんでした: {problem}")


def corrupt(count: int) -> Reason:
    what = "1 artifact is" if count == 1 else f"{count} artifacts are"
    return Reason(
        f"{what} corrupt: see `scpln-backup list`, move it away, then run `scpln-backup verify`",
        f"破損したバックアップが{count}件あります。`scpln-backup list` で確認して別の場所へ移し、"
        "`scpln-backup verify` を実行してください",
    )


def restore_broken_off(at: str) -> Reason:
    return Reason(
        f"the restore of {at} was broken off: `scpln-backup restore --resume`, or `scpln-backup restore --abort`",
        f"{at} のリストアが途中で止まっています。続行は `scpln-backup restore --resume`、"
        "元に戻すには `scpln-backup restore --abort`",
    )


def drill_failed(at: str, said: str | None) -> Reason:
    english, japanese = _quoted(said)
    return Reason(f"the drill of {at} failed: {english}", f"{at} のリストア訓練が失敗しました: {japanese}")


def incident_overdue(due: str) -> Reason:
    return Reason(
        f"an incident's report was due {due}: write and close it: `scpln-backup incident show`",
        f"インシデントの報告が期限（{due}）を過ぎています。報告を完成させ、クローズしてください: "
        "`scpln-backup incident show`",
    )


def frozen(because: str) -> Reason:
    """`because` is a sentence of this program, in English, with what to do."""
    return Reason(f"retention is frozen: {because}", f"自動削除を停止しています: {because}")


def frozen_by_run(because: str, *, failed: bool) -> Reason:
    """Frozen by how the last run ended, `failed` or suspect; `because` says that in English."""
    how = "失敗した" if failed else "要確認の"
    return Reason(
        f"retention is frozen: {because}",
        f"直前の実行が{how}ため、自動削除を停止しています。次に正常終了すると再開します",
    )


def channel_failing(name: str, since: str, waiting: int, said: str | None) -> Reason:
    english, japanese = _quoted(said)
    wait = "1 message waits" if waiting == 1 else f"{waiting} messages wait"
    return Reason(
        f"nothing has got through to {name} since {since}, {wait}: {english}; see `scpln-backup notify status`",
        f"{since} 以降、{name} に通知が届いていません（{waiting}件が送信待ち）: {japanese}。"
        "`scpln-backup notify status` で確認してください",
    )


SCHEDULER_STOPPED = Reason(
    "the scheduler is not running: restart the service",
    "スケジューラが停止しています。サービスを再起動してください",
)
DAEMON_MISSING = Reason(
    "the daemon is not running, so nothing will run by itself: `systemctl start scpln-backup`",
    "デーモンが停止しているため、自動では何も実行されません: `systemctl start scpln-backup`",
)
NOTHING_PLANNED = Reason(
    "no next run is planned: see `scpln-backup schedule`",
    "次回の実行が予定されていません。`scpln-backup schedule` で確認してください",
)
NOTHING_VERIFIED = Reason(
    "there is no verified artifact yet: run `scpln-backup backup`",
    "検証済みのバックアップがまだありません。`scpln-backup backup` を実行してください",
)


def _quoted(said: str | None) -> tuple[str, str]:
    """What a program said, on one line, for each language."""
    words = " ".join((said or "").split())
    if not words:
        return "it did not say why, see the log", "理由の記録がありません。ログを確認してください"
    return words, words
