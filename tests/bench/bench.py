"""Measure scpln-backup beside the procedure it replaces and the tools people use instead.

make bench                                        a small one, some ten minutes, printed
make bench ARGS="--mib 256 1024 4096 --limit 10 --write"
                                                      docs/benchmarks.md, an hour
make bench ARGS="--mib 16 --repeat 1"             a quick look
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

import report  # noqa: E402 - the tests' own helpers are found through the path
import rounds  # noqa: E402 - as above
import tools  # noqa: E402 - as above
from contenders import EVERYBODY, LITESTREAM, SEED, Contender  # noqa: E402 - as above
from floors import floors  # noqa: E402 - as above
from goals import GIB  # noqa: E402 - as above
from idle import idle  # noqa: E402 - as above
from rounds import Size, tell  # noqa: E402 - as above

from support.databases import grow  # noqa: E402 - as above
from support.writer import prepare  # noqa: E402 - as above

PAGE = TESTS.parent / "docs" / "benchmarks.md"


def measured(mib: int, folder: Path, contenders: list[Contender], options: argparse.Namespace, *, whole: bool) -> Size:
    """What there is to say about one size: all, or only how the costs grow with it."""
    tell(f"{mib} MiB: making the database")
    database = _database(folder, mib, "delete")
    if whole:
        rounds.warm_up(database, folder)
    repeat = options.repeat if mib <= GIB else 1
    size = Size(mib, rounds.nights(database, folder, contenders, repeat, more=whole))
    size.replaced = [rounds.replaced(database, folder) for _ in range(repeat)]
    size.floors = floors(database, folder)
    if whole and not options.no_writer:
        size.beside["delete"] = rounds.beside(database, folder, contenders, repeat, options.limit)
        _remove(database)
        database = _database(folder, mib, "wal")
        size.beside["wal"] = rounds.beside(database, folder, contenders, repeat, options.limit)
    _remove(database)
    return size


def _database(folder: Path, mib: int, mode: str) -> Path:
    database = grow(folder / "scpln.db", mib, mode)
    prepare(database)
    return database


def _remove(database: Path) -> None:
    for path in database.parent.glob(f"{database.name}*"):
        path.unlink()


def chosen(options: argparse.Namespace) -> tuple[list[Contender], list[str]]:
    """Who takes part, and a line for each who cannot."""
    wanted = [contender for contender in EVERYBODY if _wanted(contender, options)]
    problem = tools.bring() if LITESTREAM in wanted else None
    missing = []
    for contender in wanted:
        if contender.missing:
            why = f" ({problem})" if problem and contender is LITESTREAM else ""
            missing.append(f"{contender.name}: {', '.join(contender.missing)} is not to be had here{why}.")
    return [contender for contender in wanted if not contender.missing], missing


def _wanted(contender: Contender, options: argparse.Namespace) -> bool:
    words = f"{contender.name}, seed" if contender is SEED else contender.name
    if any(word in words for word in options.skip):
        return False
    return not options.only or any(word in words for word in options.only)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, nargs="+", default=[64], help="sizes of the database [64]")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions, of which the median counts [3]")
    parser.add_argument("--limit", type=float, default=10, help="seconds a backup beside a writer gets [10]")
    parser.add_argument("--no-writer", action="store_true", help="leave out what a writer feels")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="those with WORD in the name, or seed")
    parser.add_argument("--skip", nargs="+", default=[], metavar="WORD", help="leave out those with WORD in the name")
    parser.add_argument("--folder", type=Path, help="where to work; on the kind of disk to be measured [TMPDIR]")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(TESTS.parent)}, not to stdout")
    options = parser.parse_args()
    contenders, missing = chosen(options)
    for line in missing:
        tell(line)
    sizes: list[Size] = []
    text = ""
    with tempfile.TemporaryDirectory(prefix="scpln-bench-", dir=options.folder) as scratch:
        found = idle(Path(scratch), options.repeat)
        for mib in sorted(set(options.mib), key=lambda mib: abs(mib - GIB)):
            # The size nearest to a GiB, which the goals are about, is the first, and the only one with all.
            taking = contenders if mib <= GIB else rounds.quick(contenders)
            sizes.append(measured(mib, Path(scratch), taking, options, whole=not sizes))
            sizes.sort(key=lambda size: size.mib)
            text = report.page(" ".join(sys.argv[1:]), options.repeat, sizes, found, missing)
            if options.write:
                PAGE.write_text(text)  # now already: a long run may be broken off
    if not options.write:
        print(text)


if __name__ == "__main__":
    main()
