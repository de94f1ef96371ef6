"""What a restore cost, and how to say it to people.

A restore brings back one instant: everything written later is gone. What was written later shows in the old database,
as far as it can be read, in two ways: more rows than the snapshot has, and instants later than the snapshot.  Row
counts are differences (ten rows deleted and ten others written cancel out), so every number here is "at the least".
"""

# ruff: noqa: RUF001 - full-width punctuation is how Japanese is written

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING

from scpln_backup.model import Loss, TableLoss

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime, tzinfo

    from scpln_backup.model import TableFacts

_TABLES_NAMED = 8


def compare(
    before: Mapping[str, TableFacts], after: Mapping[str, TableFacts], taken_at: datetime, problem: str | None = None
) -> Loss:
    """Set what was read of the replaced database beside what was read of the restored one, tables in order of name.

    `taken_at`: the instant of the restored snapshot. `problem`: what kept the old one from being read whole.
    """
    return Loss(
        taken_at=taken_at,
        tables=tuple(
            TableLoss(name=name, before=before.get(name), after=after.get(name)) for name in sorted({*before, *after})
        ),
        problem=problem,
    )


def lost_rows(loss: Loss) -> dict[str, int]:
    """How many rows each table has fewer than before; only tables that have."""
    return {table.name: table.lost_rows for table in loss.tables if table.lost_rows}


def since(loss: Loss, zone: tzinfo) -> str:
    """The YYYY-MM-DD to rebuild from: the snapshot's own day, in `zone`.

    The first lost write came right after the snapshot, however late the last one was, and the rebuild script takes
    whole days. Not the day of the newest lost row, which says where the loss ends, nor that of the oldest one seen,
    as a table without times, or an unreadable one, may have lost an older one.
    """
    return loss.taken_at.astimezone(zone).strftime("%Y-%m-%d")


def newest_lost(loss: Loss) -> datetime | None:
    """The newest instant in the old database that is later than the snapshot; None when none is seen."""
    newest = _newest(loss)
    return None if newest is None else newest[0]


def words(loss: Loss, locale: str, zone: tzinfo) -> list[str]:
    """What the loss means, in sentences for people, the most important one first; "ja" is Japanese, others English.

    Times are local to `zone`.
    """
    texts = _JAPANESE if locale == "ja" else _ENGLISH
    taken = _local(loss.taken_at, zone)
    return [
        _headline(loss, texts, taken),
        *_changes(loss, texts, taken),
        *_last_write(loss, texts, zone),
        *_back(loss, texts),
        *_unreadable(loss, texts),
        *_schema(loss, texts),
    ]


@dataclass(frozen=True, kw_only=True)
class _Count:
    table: str
    rows: int
    at_least: bool


@dataclass(frozen=True, kw_only=True)
class _Texts:
    """One language: format strings, and how tables and their rows are listed."""

    unknown: str
    lost: str
    fewer: str
    changed: str
    nothing: str
    nothing_seen: str
    also_changed: str
    last_write: str
    back: str
    read_in_part: str
    counted_in_part: str
    uncounted: str
    times_in_part: str
    restored_unread: str
    only_before: str
    only_after: str
    names: Callable[[Sequence[str]], str]
    counts: Callable[[Sequence[_Count]], str]


def _local(instant: datetime, zone: tzinfo) -> str:
    return instant.astimezone(zone).strftime("%Y-%m-%d %H:%M")


def _headline(loss: Loss, texts: _Texts, taken: str) -> str:
    counts = _lost_counts(loss)
    if loss.problem is not None and not any(table.before for table in loss.tables):
        return texts.unknown.format(taken=taken, problem=loss.problem)
    if counts:
        text = texts.lost if _later(loss) else texts.fewer
        return text.format(taken=taken, counts=texts.counts(counts))
    if _later(loss):
        return texts.changed.format(taken=taken, names=texts.names(_later(loss)))
    return (texts.nothing if _whole(loss) else texts.nothing_seen).format(taken=taken)


def _lost_counts(loss: Loss) -> list[_Count]:
    """The tables that lost rows, the hardest hit first."""
    counts = [
        _Count(table=table.name, rows=table.lost_rows, at_least=table.before is not None and table.before.at_least)
        for table in loss.tables
        if table.lost_rows
    ]
    return sorted(counts, key=lambda count: (-count.rows, count.table))


def _later(loss: Loss) -> list[str]:
    """The tables in which the old database has an instant later than the snapshot, and the restored one has not.

    The instant that a file name tells is that of its minute's beginning, and rows can bear the future's dates: what
    the restored database has too is not lost.
    """
    return [table.name for table in loss.tables if _is_later(table, loss.taken_at)]


def _is_later(table: TableLoss, taken_at: datetime) -> bool:
    if table.before is None or table.before.newest is None or table.before.newest <= taken_at:
        return False
    kept = table.after.newest if table.after is not None else None
    return kept is None or table.before.newest > kept


def _newest(loss: Loss) -> tuple[datetime, str] | None:
    later = [
        (table.before.newest.astimezone(UTC), table.name, table.before.column)
        for table in loss.tables
        if table.before is not None and table.before.newest is not None and _is_later(table, loss.taken_at)
    ]
    if not later:
        return None
    newest, name, column = max(later, key=lambda found: found[0])
    return newest, name if column is None else f"{name}.{column}"


def _whole(loss: Loss) -> bool:
    """Whether both databases could be read in full."""
    facts = [facts for table in loss.tables for facts in (table.before, table.after) if facts is not None]
    return loss.problem is None and not any(f.rows is None or f.at_least or f.problem is not None for f in facts)


def _changes(loss: Loss, texts: _Texts, taken: str) -> list[str]:
    lost = lost_rows(loss)
    changed = [name for name in _later(loss) if name not in lost]
    return [texts.also_changed.format(taken=taken, names=texts.names(changed))] if lost and changed else []


def _last_write(loss: Loss, texts: _Texts, zone: tzinfo) -> list[str]:
    newest = _newest(loss)
    return [] if newest is None else [texts.last_write.format(at=_local(newest[0], zone), where=newest[1])]


def _back(loss: Loss, texts: _Texts) -> list[str]:
    counts = [
        _Count(table=table.name, rows=table.after.rows - table.before.rows, at_least=table.after.at_least)
        for table in loss.tables
        if table.before is not None and table.before.rows is not None and not table.before.at_least
        if table.after is not None and table.after.rows is not None and table.after.rows > table.before.rows
    ]
    return [texts.back.format(counts=texts.counts(counts))] if counts else []


def _unreadable(loss: Loss, texts: _Texts) -> list[str]:
    old = [(table.name, table.before) for table in loss.tables if table.before is not None]
    new = [(table.name, table.after) for table in loss.tables if table.after is not None]
    uncounted = [(name, facts) for name, facts in old if facts.rows is None]
    partial = [(name, facts) for name, facts in old if facts.rows is not None and facts.at_least]
    untimed = [(n, f) for n, f in old if f.rows is not None and not f.at_least and f.problem is not None]
    restored = [(name, facts) for name, facts in new if facts.rows is None or facts.at_least or facts.problem]
    sentences = [
        text.format(names=texts.names([name for name, _ in tables]), problem=_problems([facts for _, facts in tables]))
        for text, tables in (
            (texts.uncounted, uncounted),
            (texts.counted_in_part, partial),
            (texts.times_in_part, untimed),
            (texts.restored_unread, restored),
        )
        if tables
    ]
    if loss.problem is not None and old:
        sentences.insert(0, texts.read_in_part.format(problem=loss.problem))
    return sentences


def _problems(facts: Sequence[TableFacts]) -> str:
    return "; ".join(dict.fromkeys(fact.problem for fact in facts if fact.problem is not None)) or "?"


def _schema(loss: Loss, texts: _Texts) -> list[str]:
    """Tables that only one side has. Of an old database that was not read whole, only what it has is known."""
    only_before = [table.name for table in loss.tables if table.after is None]
    only_after = [table.name for table in loss.tables if table.before is None] if loss.problem is None else []
    return [
        text.format(names=texts.names(names))
        for text, names in ((texts.only_before, only_before), (texts.only_after, only_after))
        if names
    ]


def _english_names(names: Sequence[str]) -> str:
    more = len(names) - _TABLES_NAMED
    return ", ".join(names[:_TABLES_NAMED]) + (f" and {more} more" if more > 0 else "")


def _english_counts(counts: Sequence[_Count]) -> str:
    parts = []
    for place, count in enumerate(counts[:_TABLES_NAMED]):
        unit = "" if place else " row" if count.rows == 1 else " rows"
        parts.append(f"{'at least ' if count.at_least else ''}{count.rows:,}{unit} of {count.table}")
    rest = counts[_TABLES_NAMED:]
    if rest:
        least = "at least " if any(count.at_least for count in rest) else ""
        parts.append(f"{least}{sum(count.rows for count in rest):,} of {len(rest)} more tables")
    return ", ".join(parts)


def _japanese_names(names: Sequence[str]) -> str:
    more = len(names) - _TABLES_NAMED
    return "、".join(names[:_TABLES_NAMED]) + (f"、ほか{more}テーブル" if more > 0 else "")


def _japanese_counts(counts: Sequence[_Count]) -> str:
    parts = [f"{count.table} {count.rows:,}件{'以上' * count.at_least}" for count in counts[:_TABLES_NAMED]]
    rest = counts[_TABLES_NAMED:]
    if rest:
        least = "以上" * any(count.at_least for count in rest)
        parts.append(f"ほか{len(rest)}テーブルで計{sum(count.rows for count in rest):,}件{least}")
    return "、".join(parts)


_ENGLISH = _Texts(
    unknown=(
        "Everything written after {taken} is gone. How much that is cannot be told, because the old database could "
        "not be read: {problem}."
    ),
    lost="Everything written after {taken} is gone: {counts}.",
    fewer=(
        "There are fewer rows than before: {counts}. No time later than {taken} is seen in the old database, so when "
        "they were written cannot be told."
    ),
    changed=(
        "No table is seen to have fewer rows than before, but rows were changed or replaced after {taken}, and that "
        "is gone: {names}."
    ),
    nothing=(
        "No loss is seen: no table has fewer rows than before, and nothing in the old database is dated later than "
        "{taken}. Only changes to rows that bear no time would not be seen."
    ),
    nothing_seen=(
        "Everything written after {taken} is gone. What could be read shows no such write, but not everything could "
        "be read."
    ),
    also_changed="What was changed after {taken} in rows that are still there is gone too: {names}.",
    last_write="The last write that is gone, as far as can be seen, was at {at} ({where}).",
    back="Rows that were deleted after the backup are there again: {counts}.",
    read_in_part="The old database could be read only in part ({problem}): more may be missing than is listed.",
    counted_in_part="Only a part of the rows of {names} could be counted ({problem}): more may be missing.",
    uncounted="What is missing from {names} is unknown: the old table could not be read ({problem}).",
    times_in_part="The rows of {names} could be counted, but not all could be read ({problem}).",
    restored_unread="In the restored database {names} could not be read in full ({problem}): check it now.",
    only_before=(
        "Tables that the restored database does not have: {names}. They were made after the backup; the application "
        "may have to migrate the database again."
    ),
    only_after="Tables that the old database no longer had: {names}. They are back, as they were at the backup.",
    names=_english_names,
    counts=_english_counts,
)

_JAPANESE = _Texts(
    unknown=(
        "{taken} より後に書き込まれたデータは失われました。旧DBを読み取れなかったため、失われた件数は不明です"
        "（{problem}）。"
    ),
    lost="{taken} より後に書き込まれたデータは失われました：{counts}。",
    fewer=(
        "復旧前より件数が減っています：{counts}。旧DBに {taken} より新しい日時は見つからず、"
        "いつ書き込まれた行かは分かりません。"
    ),
    changed=(
        "件数が減ったテーブルは見当たりませんが、{taken} より後の更新（または行の入れ替え）は失われました：{names}。"
    ),
    nothing=(
        "失われたデータは確認されませんでした。件数が減ったテーブルはなく、旧DBに {taken} より新しい日時もありません。"
        "ただし、日時を持たない行の更新は、この比較では検出できません。"
    ),
    nothing_seen=(
        "{taken} より後に書き込まれたデータは失われました。読み取れた範囲では該当する書き込みは見つかりませんでしたが、"
        "読み取れない部分があります。"
    ),
    also_changed="残っている行についても、{taken} より後の更新は失われました：{names}。",
    last_write="失われた書き込みのうち、確認できた最も新しいものは {at} です（{where}）。",
    back="バックアップ後に削除した行が元に戻っています：{counts}。",
    read_in_part="旧DBは一部しか読み取れませんでした（{problem}）。実際の欠損はこれより多い可能性があります。",
    counted_in_part=(
        "{names} は行の一部しか数えられませんでした（{problem}）。実際の欠損はこれより多い可能性があります。"
    ),
    uncounted="{names} の欠損は不明です。旧DBのテーブルを読み取れませんでした（{problem}）。",
    times_in_part="{names} は、件数は確認できましたが、読み取れない行があります（{problem}）。",
    restored_unread="復旧後のDBで {names} を完全には読み取れませんでした（{problem}）。至急確認してください。",
    only_before=(
        "復旧後のDBにないテーブルがあります：{names}。バックアップ後に作成されたものです。"
        "アプリのマイグレーションの再実行が必要な場合があります。"
    ),
    only_after="旧DBから削除されていたテーブルが、バックアップ時点の内容で元に戻っています：{names}。",
    names=_japanese_names,
    counts=_japanese_counts,
)
