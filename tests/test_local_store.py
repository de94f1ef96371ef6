"""Artifacts in the backup root: listed as find sees them, published and deleted whole, kept while read."""

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest

from scpln_backup.errors import ArtifactError, BackupError, NoSpaceError
from scpln_backup.model import Compression, Fingerprint, Manifest, State
from scpln_backup.stores.local import LocalStore

TOKYO = ZoneInfo("Asia/Tokyo")
BERLIN = ZoneInfo("Europe/Berlin")
NAME = "scpln-20261122_0230.db.gz"
CONTENT = gzip.compress(b"a database")
TAKEN = datetime(2026, 11, 22, 2, 30, 5, tzinfo=TOKYO)
FINGERPRINT = Fingerprint(
    sha256=hashlib.sha256(b"a database").hexdigest(),
    size_bytes=10,
    page_size=4096,
    page_count=1,
    schema_sha256="",
    user_version=0,
    application_id=0,
    tables={"runs": 1},
)


def manifest_of(name: str = NAME, content: bytes = CONTENT, taken_at: datetime = TAKEN, **changes) -> Manifest:
    manifest = Manifest(
        name=name,
        database="scpln",
        environment="test",
        taken_at=taken_at,
        compression=Compression.GZIP,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        fingerprint=FINGERPRINT,
        state=State.VERIFIED,
    )
    return msgspec.structs.replace(manifest, **changes)


def stage(store: LocalStore, content: bytes = CONTENT) -> Path:
    staged = store.prepare() / "staged"
    staged.write_bytes(content)
    staged.chmod(0o600)
    return staged


def adopt(store: LocalStore, name: str, content: bytes = CONTENT, folder: str = "2026") -> Path:
    """Put a file there as the old procedure does."""
    path = store.root / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def tree(store: LocalStore) -> set[str]:
    """Every file under the root."""
    return {str(path.relative_to(store.root)) for path in store.root.rglob("*") if not path.is_dir()}


def complete(name: str = NAME, folder: str = "2026") -> set[str]:
    return {f"{folder}/{name}{ending}" for ending in ("", ".json", ".sha256")}


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "root", "scpln", TOKYO)


@pytest.fixture
def published(store):
    store.publish(stage(store), manifest_of())
    return store


def test_publish_puts_the_artifact_and_its_sidecars_in_the_years_folder(store):
    artifact = store.publish(stage(store), manifest_of())
    assert tree(store) == complete()
    assert artifact == store.get(NAME)
    assert (artifact.state, artifact.bytes, artifact.raw_bytes) == (State.VERIFIED, len(CONTENT), 10)
    assert artifact.taken_at == TAKEN
    assert artifact.taken_at.tzinfo is TOKYO
    for path in (store.root, store.staging, store.root / "2026"):
        assert path.stat().st_mode & 0o777 == 0o700
    for path in (store.root / "2026").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600


def test_sha256sum_checks_what_was_published(published):
    subprocess.run(["sha256sum", "-c", "--strict", f"{NAME}.sha256"], cwd=published.root / "2026", check=True)
    data = subprocess.run(["gunzip", "-c", NAME], cwd=published.root / "2026", check=True, capture_output=True)
    assert data.stdout == b"a database"


def test_the_year_is_the_one_in_the_name(store):
    """Five past midnight in Tokyo is last year in UTC."""
    name = "scpln-20270101_0005.db.gz"
    store.publish(stage(store), manifest_of(name, taken_at=datetime(2026, 12, 31, 15, 5, tzinfo=UTC)))
    assert tree(store) == complete(name, "2027")


def test_publish_never_overwrites(published):
    before = {path: path.read_bytes() for path in (published.root / "2026").iterdir()}
    other = gzip.compress(b"another")
    staged = stage(published, other)
    with pytest.raises(ArtifactError, match="never overwritten"):
        published.publish(staged, manifest_of(content=other))
    assert {path: path.read_bytes() for path in (published.root / "2026").iterdir()} == before
    assert staged.read_bytes() == other


def test_publish_never_overwrites_what_the_old_procedure_wrote(store):
    path = adopt(store, NAME, b"old")
    with pytest.raises(ArtifactError, match="never overwritten"):
        store.publish(stage(store), manifest_of())
    assert path.read_bytes() == b"old"


def test_publish_replaces_leftovers_of_the_same_name(store):
    for ending in (".json", ".sha256", ".pin"):
        adopt(store, NAME + ending, b"left behind")
    artifact = store.publish(stage(store), manifest_of())
    assert (artifact.state, artifact.pinned) == (State.VERIFIED, False)
    assert store.get(NAME) == artifact
    assert tree(store) == complete()


def test_publish_refuses_what_its_manifest_does_not_describe(store):
    staged = stage(store, CONTENT + b"more")
    with pytest.raises(ArtifactError, match="its manifest says"):
        store.publish(staged, manifest_of())
    for name in ("other-20261122_0230.db.gz", "scpln-1/../../x.db.gz", "scpln.db"):
        with pytest.raises(ArtifactError, match="not the name"):
            store.publish(staged, manifest_of(name))
    assert tree(store) == {".staging/staged"}


def test_publish_refuses_a_years_folder_that_a_scan_would_not_enter(store, tmp_path):
    store.prepare()
    (tmp_path / "elsewhere").mkdir()
    (store.root / "2026").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="symbolic link"):
        store.publish(stage(store), manifest_of())
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    # Four inodes: the root, staging, the staged file, and one for the year's folder.
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=5", "none", full], check=False).returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        store = LocalStore(full, "scpln", TOKYO)
        with pytest.raises(NoSpaceError, match="2026"):
            store.publish(stage(store), manifest_of())
        assert tree(store) == {".staging/staged"}
        assert store.scan() == []
    finally:
        subprocess.run(["umount", full], check=True)


PUBLISH = """
import sys
from pathlib import Path
from zoneinfo import ZoneInfo
import msgspec
from scpln_backup.errors import BackupError
from scpln_backup.model import Manifest
from scpln_backup.stores.local import LocalStore
root = Path(sys.argv[1])
manifest = msgspec.json.decode(sys.argv[2], type=Manifest)
try:
    LocalStore(root, "scpln", ZoneInfo("Asia/Tokyo")).publish(root / ".staging" / "staged", manifest)
except BackupError as error:
    sys.exit(f"{type(error).__name__}: {error}")
sys.exit(9)
"""
# What a publication does with the disk. One more than there are of each call, so that none is left out.
POINTS = [
    *[("fsync", "EIO", when) for when in range(1, 8)],
    *[("/^rename", "EIO", when) for when in range(1, 5)],
    *[("/^mkdir", "EDQUOT", when) for when in range(1, 3)],
    *[("write", "ENOSPC", when) for when in range(1, 4)],
    *[("/^unlink", "EIO", when) for when in range(1, 3)],
    *[("fchmod", "EPERM", when) for when in range(1, 4)],
]


def publish_with_fault(root: Path, injection: str) -> subprocess.CompletedProcess:
    stage(LocalStore(root, "scpln", TOKYO))
    return run_with_fault(injection, PUBLISH, root, msgspec.json.encode(manifest_of()))


def run_with_fault(injection: str, script: str, *values, only=()) -> subprocess.CompletedProcess:
    arguments = [sys.executable, "-c", script, *values]
    traced = ["-e", f"trace={injection.partition(':')[0]}", *only]
    command = ["strace", "-f", "-qq", "-o", "/dev/null", *traced, "-e", f"inject={injection}", *arguments]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


@pytest.mark.faults
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_publication_that_fails_anywhere_leaves_nothing(tmp_path):
    def attempt(point):
        call, error, when = point
        root = tmp_path / f"{call.strip('/^')}-{when}"
        return point, root, publish_with_fault(root, f"{call}:error={error}:when={when}")

    with ThreadPoolExecutor(2) as pool:
        attempts = list(pool.map(attempt, POINTS))
    failed = set()
    for (call, error, when), root, done in attempts:
        store = LocalStore(root, "scpln", TOKYO)
        if done.returncode == 9:  # fewer calls than that
            assert tree(store) == complete(), (call, when)
            continue
        failed.add((call, when))
        assert done.returncode == 1, (call, when, done.stderr)
        assert str(root) in done.stderr, (call, when, done.stderr)
        assert (error in {"ENOSPC", "EDQUOT"}) == done.stderr.startswith("NoSpaceError"), (call, when, done.stderr)
        assert store.scan() == [], (call, when)
        store.clean()
        assert tree(store) == set(), (call, when)
    assert {call for call, _ in failed} == {call for call, _, _ in POINTS}
    last = {call: when for call, _, when in POINTS}
    assert not failed & set(last.items())


@pytest.mark.faults
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_publication_killed_anywhere_is_complete_or_nothing(tmp_path):
    def attempt(point):
        call, _, when = point
        root = tmp_path / f"{call.strip('/^')}-{when}"
        return point, root, publish_with_fault(root, f"{call}:signal=KILL:when={when}")

    with ThreadPoolExecutor(2) as pool:
        attempts = list(pool.map(attempt, POINTS))
    killed = {call for (call, _, _), _, done in attempts if done.returncode != 9}
    assert killed == {call for call, _, _ in POINTS}
    for (call, _, when), root, done in attempts:
        store = LocalStore(root, "scpln", TOKYO)
        assert done.returncode in {-9, 137, 9}, (call, when, done.stderr)
        listed = store.scan()
        assert all(artifact.state is State.VERIFIED and artifact.problem is None for artifact in listed)
        store.clean()
        assert tree(store) == (complete() if listed else set()), (call, when)
        if not listed:  # and the next run can use the name
            store.publish(stage(store), manifest_of())
            assert tree(store) == complete()


def test_a_missing_root_has_no_artifacts(store):
    assert store.scan() == []
    assert store.clean() == []
    with pytest.raises(ArtifactError, match="no such artifact"):
        store.get(NAME)


def test_scan_finds_what_find_finds(store):
    adopt(store, NAME)
    adopt(store, "scpln-20250101_0230.db.gz", folder="2025")
    adopt(store, "scpln-20240101_0230.db.zst", folder="old/deep")
    adopt(store, "scpln-hand-made.db.gz", folder=".")
    adopt(store, "other-20250101_0230.db.gz", folder="2025")
    adopt(store, "scpln-20250101_0230.db", folder="2025")
    adopt(store, f"{NAME}.json.bak")
    adopt(store, "scpln-20260101_0230.db.gz", folder=".staging")
    (store.root / "2025" / "scpln-20250202_0230.db.gz").symlink_to(store.root / "2026" / NAME)
    (store.root / "2025" / "scpln-20250303_0230.db.gz").mkdir()
    os.mkfifo(store.root / "2025" / "scpln-20250404_0230.db.gz")
    (store.root / "linked").symlink_to(store.root / "2025")
    command = ["find", store.root, "-path", store.staging, "-prune", "-o", "-type", "f"]
    found = subprocess.run(
        [*command, "(", "-name", "scpln-*.db.gz", "-o", "-name", "scpln-*.db.zst", ")", "-print"],
        check=True,
        capture_output=True,
        text=True,
    )
    artifacts = store.scan()
    assert sorted(artifact.path for artifact in artifacts) == sorted(found.stdout.splitlines())
    assert len(artifacts) == 4
    instants = [artifact.taken_at.timestamp() for artifact in artifacts]
    assert instants == sorted(instants, reverse=True)


def test_an_adopted_artifact_is_unverified_and_dated_by_its_name_or_its_file(store):
    adopt(store, NAME)
    path = adopt(store, "scpln-before-migration.db.gz")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    named, unnamed = store.scan()
    assert (named.state, named.problem, named.manifest, named.raw_bytes) == (State.UNVERIFIED, None, None, None)
    assert named.taken_at == datetime(2026, 11, 22, 2, 30, tzinfo=TOKYO)
    assert unnamed.taken_at == unnamed.modified_at == datetime.fromtimestamp(1_000_000_000, TOKYO)


def test_the_repeated_hour_is_listed_in_its_true_order(tmp_path):
    store = LocalStore(tmp_path, "scpln", BERLIN)
    first = datetime(2026, 10, 25, 0, 50, tzinfo=UTC)  # 02:50 summer time
    second = first + timedelta(minutes=20)  # 02:10 winter time
    store.publish(stage(store), manifest_of("scpln-20261025_0250.db.gz", taken_at=first))
    store.publish(stage(store), manifest_of("scpln-20261025_0210.db.gz", taken_at=second))
    assert [artifact.name[6:19] for artifact in store.scan()] == ["20261025_0210", "20261025_0250"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"name": 1}',
        b"[" * 100_000,
        msgspec.json.encode(manifest_of("scpln-20200101_0000.db.gz")),
        msgspec.json.encode(manifest_of(format=2)),
        msgspec.json.encode(manifest_of(taken_at=datetime(2026, 11, 22, 2, 30))),  # noqa: DTZ001 - without an offset
        msgspec.json.encode(manifest_of(taken_at=datetime(1, 1, 1, tzinfo=UTC))),
    ],
)
def test_a_manifest_that_cannot_be_used_is_said(published, content):
    (published.root / "2026" / f"{NAME}.json").write_bytes(content)
    (artifact,) = published.scan()
    assert artifact.state is State.UNVERIFIED
    assert f"{NAME}.json" in artifact.problem
    assert "\n" not in artifact.problem
    assert artifact.manifest is None


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/etc/passwd")])
def test_what_is_not_a_file_is_no_manifest(published, make):
    path = published.root / "2026" / f"{NAME}.json"
    path.unlink()
    make(path)
    (artifact,) = published.scan()
    assert artifact.state is State.UNVERIFIED
    assert "unreadable manifest" in artifact.problem


def test_an_artifact_of_another_size_is_corrupt(published):
    with (published.root / "2026" / NAME).open("ab") as file:
        file.write(b"x")
    (artifact,) = published.scan()
    assert artifact.state is State.CORRUPT
    assert f"{len(CONTENT) + 1} bytes" in artifact.problem
    assert artifact.manifest is not None


def test_a_manifest_of_a_newer_version_with_more_keys_is_read(published):
    path = published.root / "2026" / f"{NAME}.json"
    path.write_bytes(path.read_bytes().replace(b"{", b'{"not_yet_known": [1],', 1))
    assert published.get(NAME).state is State.VERIFIED


def test_a_file_time_beyond_the_calendar_fails_no_listing(store):
    path = adopt(store, "scpln-odd.db.gz")
    for seconds in (2**40, -(2**33)):
        os.utime(path, (seconds, seconds))
        assert len(store.scan()) == 1


def test_of_two_files_of_one_name_the_one_in_its_year_counts(store):
    copy = adopt(store, NAME, b"copy", folder="2019")
    original = adopt(store, NAME)
    assert [artifact.path for artifact in store.scan()] == [str(original)]
    store.delete(NAME)
    assert copy.exists()
    assert [artifact.path for artifact in store.scan()] == [str(copy)]


def test_a_folder_that_cannot_be_read_is_an_error_not_an_empty_folder(store):
    adopt(store, NAME)
    (store.root / "lost+found").mkdir(mode=0o000)
    for folder in (store.root, *store.root.parents[:4]):
        folder.chmod(0o755)
    assert as_nobody(lambda: len(store.scan())) == "1"
    (store.root / "2026").chmod(0o000)
    answer = as_nobody(store.scan)
    assert answer.startswith("BackupError")
    assert "2026" in answer


def as_nobody(act) -> str:
    """What `act` returns, or its error, in a child without root's privileges."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            answer = str(act())
        except BackupError as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(write_end, answer.encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def test_update_manifest_replaces_the_state(published):
    changed = manifest_of(state=State.CORRUPT, state_reason="does not decompress")
    published.update_manifest(changed)
    assert published.get(NAME).manifest == changed
    assert tree(published) == complete()
    with pytest.raises(ArtifactError, match="no such artifact"):
        published.update_manifest(manifest_of("scpln-20200101_0000.db.gz"))


def test_an_adopted_artifact_gets_its_manifest_and_checksum(store):
    adopt(store, NAME)
    store.update_manifest(manifest_of())
    assert tree(store) == complete()
    assert store.get(NAME).state is State.VERIFIED


@pytest.mark.parametrize("with_manifest", [True, False])
def test_pin_and_unpin(store, with_manifest):
    if with_manifest:
        store.publish(stage(store), manifest_of())
    else:
        adopt(store, NAME)
    before = tree(store)
    store.pin(NAME, True)
    store.pin(NAME, True)
    artifact = store.get(NAME)
    assert artifact.pinned
    if with_manifest:
        assert artifact.manifest.pinned
    with pytest.raises(ArtifactError, match="pinned"):
        store.delete(NAME)
    store.pin(NAME, False)
    assert not store.get(NAME).pinned
    assert tree(store) == before
    store.delete(NAME)
    assert tree(store) == set()
    with pytest.raises(ArtifactError, match="no such artifact"):
        store.pin(NAME, True)


def test_a_verification_that_began_before_a_pin_does_not_undo_it(published):
    before = published.get(NAME).manifest
    published.pin(NAME, True)
    published.update_manifest(msgspec.structs.replace(before, verified_at=TAKEN))
    artifact = published.get(NAME)
    assert artifact.pinned
    assert artifact.manifest.pinned
    assert artifact.manifest.verified_at == TAKEN


def test_a_pin_outlives_its_manifest(published):
    published.pin(NAME, True)
    (published.root / "2026" / f"{NAME}.json").write_bytes(b"damaged")
    assert published.get(NAME).pinned


def test_delete_takes_the_sidecars_along(published):
    published.publish(stage(published), manifest_of("scpln-20261123_0230.db.gz"))
    published.delete(NAME)
    assert tree(published) == complete("scpln-20261123_0230.db.gz")
    for name in (NAME, f"{NAME}.json", "../outside", "scpln.db", ""):
        with pytest.raises(ArtifactError):
            published.delete(name)


ACT = """
import sys
from pathlib import Path
from zoneinfo import ZoneInfo
from scpln_backup.errors import BackupError
from scpln_backup.stores.local import LocalStore
store = LocalStore(Path(sys.argv[1]), "scpln", ZoneInfo("Asia/Tokyo"))
try:
    getattr(store, sys.argv[2])(*sys.argv[3:])
except BackupError as error:
    sys.exit(str(error))
"""


@pytest.mark.faults
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("fault", ["error=EIO", "signal=KILL"])
def test_a_deletion_that_fails_anywhere_leaves_all_of_it_or_no_artifact(tmp_path, fault):
    for call, when in [*[("/^unlink", when) for when in range(1, 5)], ("fsync", 1)]:
        store = LocalStore(tmp_path / f"{call.strip('/^')}-{when}", "scpln", TOKYO)
        store.publish(stage(store), manifest_of())
        done = run_with_fault(f"{call}:{fault}:when={when}", ACT, store.root, "delete", NAME)
        assert done.returncode != 0, (call, when)
        assert store.scan() == [] or tree(store) == complete(), (call, when)
        assert store.clean() is not None
        assert tree(store) == (complete() if store.scan() else set()), (call, when)


@pytest.mark.faults
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_clean_removes_the_rest_before_it_says_what_it_could_not(published):
    for name in ("a", "b", "c"):
        (published.staging / name).write_text("")
    done = run_with_fault("/^unlink:error=EIO:when=2", ACT, published.root, "clean")
    assert (done.returncode, ".staging/b: " in done.stderr) == (1, True)
    assert published.clean() == [".staging/b"]


@pytest.mark.faults
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize(
    ("unseen", "act"),
    [(NAME, ["clean"]), (NAME, ["scan"]), (f"{NAME}.pin", ["scan"]), (f"{NAME}.pin", ["delete", NAME])],
)
def test_what_cannot_be_looked_at_does_not_count_as_missing(published, unseen, act):
    """Else a pin that cannot be seen is no pin, and the manifest of an artifact that cannot be seen an orphan."""
    published.pin(NAME, True)
    (published.root / "2026" / f"{NAME}.json").write_bytes(msgspec.json.encode(manifest_of()))
    before = tree(published)
    looks = "/^(lstat|stat|newfstatat|statx)$"
    only = ["-P", published.root / "2026" / unseen]
    done = run_with_fault(f"{looks}:error=EIO:when=1+", ACT, published.root, *act, only=only)
    assert tree(published) == before
    assert done.returncode == 1
    assert f"{unseen}: Input/output error" in done.stderr


def test_an_artifact_being_read_is_not_deleted(published):
    with published.reading(NAME) as file:
        with pytest.raises(ArtifactError, match="being read"):
            published.delete(NAME)
        with published.reading(NAME) as again:
            assert file.read() == again.read() == CONTENT
    published.delete(NAME)


def test_reading_does_not_follow_a_link_or_invent_a_file(published):
    (published.root / "2026" / "scpln-20261123_0230.db.gz").symlink_to(NAME)
    for name in ("scpln-20261123_0230.db.gz", "scpln-20991123_0230.db.gz"):
        with pytest.raises(ArtifactError, match="no such artifact"), published.reading(name):
            pass


def test_clean_removes_leftovers_and_nothing_else(published, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("")
    folder = published.root / "2026"
    published.pin(NAME, True)
    keep = [
        adopt(published, name, b"") for name in ("notes.json", "other-1.db.gz.json", ".a.json.0123456789abcdef.tmp")
    ]
    keep.append(adopt(published, "scpln-20261121_0230.db.gz"))
    before = tree(published)
    (published.staging / "half.db").write_text("")
    (published.staging / "deep" / "er").mkdir(parents=True)
    (published.staging / "deep" / "er" / "file").write_text("")
    (published.staging / "link").symlink_to(outside)
    (folder / "scpln-20261120_0230.db.gz.json").write_text("{}")
    (folder / "scpln-20261120_0230.db.gz.sha256").write_text("")
    (folder / "scpln-20261120_0230.db.gz.pin").write_text("")
    (folder / f".{NAME}.json.0123456789abcdef.tmp").write_text("")
    removed = published.clean()
    assert tree(published) == before
    assert sorted(removed) == [
        ".staging/deep",
        ".staging/half.db",
        ".staging/link",
        f"2026/.{NAME}.json.0123456789abcdef.tmp",
        "2026/scpln-20261120_0230.db.gz.json",
        "2026/scpln-20261120_0230.db.gz.pin",
        "2026/scpln-20261120_0230.db.gz.sha256",
    ]
    assert (outside / "precious").exists()
    assert published.clean() == []
    assert published.get(NAME).pinned


def test_clean_does_not_empty_a_folder_that_staging_points_to(store, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("")
    store.root.mkdir()
    store.staging.symlink_to(outside)
    for act in (store.clean, store.prepare):
        with pytest.raises(ArtifactError, match="symbolic link"):
            act()
    assert (outside / "precious").exists()


def test_scan_reads_no_artifact(store):
    """A hundred sparse files of a gigabyte are listed at once."""
    for day in range(100):
        path = adopt(store, f"scpln-2026{day:04}_0230.db.gz", b"")
        os.truncate(path, 2**30)
    begin = time.monotonic()
    assert len(store.scan()) == 100
    assert time.monotonic() - begin < 1
