"""The process that does a run's heavy work: snapshot, check, compress, prove, all inside the staging folder.

It is a process of its own because SQLite's POSIX locks demand it (see `source.inspect`), because it keeps the
interpreter's lock away from the daemon's scrapes, and because its memory goes back when it ends.  It publishes
nothing: killing it at any point harms nothing but the run.

stdin gets one Request; stdout gives one JSON message a line: any number of Progress, then Done or Failed.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scpln_backup import errors
from scpln_backup.model import Compression, Fingerprint, Preset, Stage
from scpln_backup.stages import blocks, check, pack, reuse, snapshot, source
from scpln_backup.support import niceness
from scpln_backup.support.command import die_with_parent, keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """`copy` and `artifact` are new files in the staging folder; the copy is gone when the work is done.

    `older` is an artifact to make the new one from if the database in it is the source's still.
    """

    source: str
    copy: str
    artifact: str
    compression: Compression
    preset: Preset
    limits: snapshot.Limits
    older: reuse.Older | None = None


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    stage: Stage
    done: int
    total: int


class Done(msgspec.Struct, frozen=True, tag="done"):
    """`reused`: the artifact has the older one's bytes.

    `older_damage` says in what way that one was found damaged, `older_unread` why it could not be read.
    """

    snapshot: snapshot.SnapshotFacts
    fingerprint: Fingerprint
    artifact_bytes: int
    artifact_sha256: str
    stage_seconds: dict[Stage, float]
    reused: bool = False
    older_damage: str | None = None
    older_unread: str | None = None


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """`kind` is the name of a class in `errors`."""

    kind: str
    message: str

    def error(self) -> errors.BackupError:
        found = getattr(errors, self.kind, errors.BackupError)
        return found(self.message) if issubclass(found, errors.BackupError) else errors.BackupError(self.message)


Message = Progress | Done | Failed


def main() -> None:
    die_with_parent()
    keep_freed_memory()
    with suppress(OSError):
        # When memory runs out the kernel should take the run, which can be made again, and leave the daemon.
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    request = msgspec.json.decode(sys.stdin.buffer.readline(), type=Request)
    reporter = _Reporter(sys.stdout.fileno())
    try:
        reporter.send(run(request, reporter))
    except errors.BackupError as error:
        reporter.send(Failed(type(error).__name__, str(error)))
        sys.exit(1)
    except OSError as error:
        reporter.send(_os_failure(error))
        sys.exit(1)


def _os_failure(error: OSError) -> Failed:
    failure = errors.from_os(error)
    return Failed(type(failure).__name__, str(failure))


class _Reporter:
    """Writes messages to the parent; of a stage's progress each per cent once."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def send(self, message: Message) -> None:
        os.write(self._descriptor, msgspec.json.encode(message) + b"\n")

    def progress(self, stage: Stage) -> Callable[[int, int], None]:
        self.send(Progress(stage, 0, 0))
        told = 0

        def report(done: int, total: int) -> None:
            nonlocal told
            percent = done * 100 // total if total else 0
            if percent != told:
                told = percent
                self.send(Progress(stage, done, total))

        return report


def run(request: Request, reporter: _Reporter) -> Done:
    """Do the whole work; raise BackupError or OSError."""
    seconds: dict[Stage, float] = {}
    with _timed(seconds, Stage.SNAPSHOT):
        facts, trouble = _snapshot(request, reporter.progress(Stage.SNAPSHOT))
    if facts.unchanged and request.older is not None:
        try:
            return _reused(request, request.older, reporter, facts, seconds)
        except (errors.ProofError, OSError) as error:
            # The source is at hand, and makes an artifact of its own.
            trouble = reuse.UnreadableError(errors.from_os(error) if isinstance(error, OSError) else error)
            Path(request.artifact).unlink(missing_ok=True)
        with _timed(seconds, Stage.SNAPSHOT), _naming(Path(request.copy)):
            report = reporter.progress(Stage.SNAPSHOT)
            facts = snapshot.take(Path(request.source), Path(request.copy), request.limits, report)
    niceness.stand_back()  # no writer waits for us any more
    done = _compressed(request, reporter, facts, seconds)
    if isinstance(trouble, reuse.UnreadableError):
        return msgspec.structs.replace(done, older_unread=str(trouble))
    return msgspec.structs.replace(done, older_damage=str(trouble)) if trouble is not None else done


def _snapshot(
    request: Request, report: Callable[[int, int], None]
) -> tuple[snapshot.SnapshotFacts, errors.ArtifactError | None]:
    """What `snapshot.take` gave, and the trouble with the older artifact, which then was done without."""
    path, copy, limits = Path(request.source), Path(request.copy), request.limits
    trouble = None
    with _naming(copy):
        if request.older is not None:
            known = reuse.Content(request.older, limits.workers)
            try:
                return snapshot.take(path, copy, limits, report, known), None
            except errors.ArtifactError as error:
                trouble = error
        return snapshot.take(path, copy, limits, report), trouble


def _reused(
    request: Request,
    older: reuse.Older,
    reporter: _Reporter,
    facts: snapshot.SnapshotFacts,
    seconds: dict[Stage, float],
) -> Done:
    artifact = Path(request.artifact)
    with _timed(seconds, Stage.PROVE), _naming(artifact), niceness.background_disk():
        reporter.progress(Stage.PROVE)
        reuse.duplicate(older, artifact)
    return Done(facts, older.fingerprint, older.bytes, older.sha256, seconds, reused=True)


def _compressed(
    request: Request, reporter: _Reporter, facts: snapshot.SnapshotFacts, seconds: dict[Stage, float]
) -> Done:
    copy, artifact = Path(request.copy), Path(request.artifact)
    # The check has one core and the compression what it leaves; either failing ends the run.
    with ThreadPoolExecutor(1) as beside:
        examined = beside.submit(_timed_check, seconds, copy, Path(request.source))
        report = reporter.progress(Stage.COMPRESS)

        def step(done: int, total: int) -> None:
            if examined.done():
                examined.result()  # a damaged snapshot is not worth compressing to the end
            report(done, total)

        with _timed(seconds, Stage.COMPRESS), _naming(artifact):
            copied = pack.compress(
                copy,
                artifact,
                compression=request.compression,
                preset=request.preset,
                workers=request.limits.workers,
                progress=step,
            )
        reporter.progress(Stage.CHECK)
        content = examined.result()
        reporter.progress(Stage.PROVE)
        proven = beside.submit(_timed_proof, seconds, artifact, request, copied)
        # With it goes what it took of the page cache, which takes its time, and what of it was not yet written never
        # will be.
        copy.unlink()
        stored = proven.result()
    return Done(
        facts,
        content.fingerprint(copied.raw_sha256, copied.raw_bytes),
        stored.size_bytes,
        stored.sha256,
        seconds,
    )


def _timed_check(seconds: dict[Stage, float], copy: Path, path: Path) -> check.Content:
    with _timed(seconds, Stage.CHECK):
        try:
            return check.examine(copy, mapped=True)
        except errors.SourceError as error:
            raise source.blamed(path, error) from error


def _timed_proof(
    seconds: dict[Stage, float], artifact: Path, request: Request, copied: pack.Compressed
) -> blocks.Stored:
    with _timed(seconds, Stage.PROVE):
        return _prove(artifact, request, copied)


def _prove(artifact: Path, request: Request, copied: pack.Compressed) -> blocks.Stored:
    with _naming(artifact), niceness.read_piecemeal(artifact) as file:
        try:
            stored = pack.prove(file, request.compression, request.limits.workers, copied)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # nobody reads it again soon
        except (errors.ArtifactError, errors.ProofError) as error:
            msg = f"{artifact}: what was written {error}; is the disk healthy? see: journalctl -k"
            raise errors.ProofError(msg) from error
    return stored


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say which file it was: errors of calls on a descriptor (write, fsync) don't."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def _timed(seconds: dict[Stage, float], stage: Stage) -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
    finally:
        seconds[stage] = round(time.monotonic() - began, 3)


if __name__ == "__main__":
    main()
