"""Measure scpln-backup beside the procedure it replaces, and write docs/benchmarks.md.

    make bench                                  256 MiB, three repetitions
    make bench ARGS="--mib 256 1024"            several sizes, one page
    make bench ARGS="--mib 16 --out -"          a quick look, printed

Needs twice the size on disk for the databases, and as much again for the copies.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

import report  # noqa: E402 - the tests' own helpers are found through the path
from contenders import BALANCED, OURS, PEERS, SEED, Contender  # noqa: E402 - as above
from measure import Sample, measure, measure_beside_a_writer, middle, writer_alone  # noqa: E402 - as above

from support.databases import grow  # noqa: E402 - as above
from support.writer import Report, prepare  # noqa: E402 - as above

PAGE = TESTS.parent / "docs" / "benchmarks.md"


class Bench:
    """Measures in a scratch folder, and tells on stderr what it is at."""

    def __init__(self, folder: Path, repeat: int, limit: float, skip: list[str]) -> None:
        self._folder, self._repeat, self._limit = folder, repeat, limit
        self._contenders = [
            contender
            for contender in (SEED, *PEERS, *OURS)
            if not contender.missing and not any(word in contender.name for word in skip)
        ]
        self._beside = [contender for contender in (SEED, PEERS[-1], BALANCED) if not contender.missing]

    def size(self, mib: int) -> str:
        """All tables of one size."""
        found = ""
        for mode in report.MODES:
            tell(f"{mib} MiB, {report.MODES[mode]}: making the database")
            database = grow(self._folder / f"scpln-{mode}.db", mib, mode)
            prepare(database)
            for contender in (SEED, BALANCED):
                if not contender.missing:
                    self._once(contender, database)  # the first touch of memory costs, and is nobody's fault
            found += report.idle_table(mib, mode, self._idle(database))
            alone = writer_alone(database, 5)
            found += report.writer_table(mib, mode, alone, self._with_writer(database))
            for path in self._folder.glob(f"{database.name}*"):
                path.unlink()
        return found

    def _idle(self, database: Path) -> dict[Contender, Sample]:
        samples: dict[Contender, list[Sample]] = {contender: [] for contender in self._contenders}
        for turn in range(self._repeat):
            for contender in self._contenders[:: -1 if turn % 2 else 1]:
                samples[contender].append(self._once(contender, database))
        return {contender: middle(found) for contender, found in samples.items()}

    def _once(self, contender: Contender, database: Path) -> Sample:
        out = self._folder / "out"
        sample = measure(contender, database, out, 1800)
        shutil.rmtree(out)
        tell(f"  {contender.name}: {sample.problem or f'{sample.wall:.2f} s'}")
        return sample

    def _with_writer(self, database: Path) -> dict[Contender, tuple[list[Sample], Report]]:
        found: dict[Contender, tuple[list[Sample], Report]] = {c: ([], Report([], [], 0, 0)) for c in self._beside}
        out = self._folder / "out"
        for turn in range(self._repeat):
            for contender in self._beside[:: -1 if turn % 2 else 1]:
                sample, felt = measure_beside_a_writer(contender, database, out, self._limit)
                shutil.rmtree(out)
                tell(f"  beside a writer, {contender.name}: {sample.problem or f'{sample.wall:.2f} s'}")
                samples, report_so_far = found[contender]
                samples.append(sample)
                report_so_far.seconds.extend(felt.seconds)
                report_so_far.errors.extend(felt.errors)
        return found


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mib", type=int, nargs="+", default=[256], help="sizes of the database [256]")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions, of which the median counts [3]")
    parser.add_argument("--limit", type=float, default=60, help="seconds a backup beside a writer gets [60]")
    parser.add_argument("--skip", nargs="+", default=[], metavar="WORD", help="leave out those with WORD in the name")
    parser.add_argument("--folder", type=Path, help="where to work; on the kind of disk to be measured [TMPDIR]")
    parser.add_argument("--out", default=str(PAGE), help="the page to write, - for stdout [docs/benchmarks.md]")
    options = parser.parse_args()
    arguments = f"--mib {' '.join(map(str, options.mib))} --repeat {options.repeat} --limit {options.limit:g}"
    if options.skip:
        arguments += f" --skip {' '.join(options.skip)}"
    with tempfile.TemporaryDirectory(prefix="scpln-bench-", dir=options.folder) as folder:
        bench = Bench(Path(folder), options.repeat, options.limit, options.skip)
        tables = "".join(bench.size(mib) for mib in options.mib)
    missing = [f"{c.name}: {', '.join(c.missing)} is not installed." for c in (SEED, *PEERS) if c.missing]
    page = report.head(arguments, options.repeat) + tables + report.tail(missing)
    if options.out == "-":
        print(page)
    else:
        Path(options.out).write_text(page)


if __name__ == "__main__":
    main()
