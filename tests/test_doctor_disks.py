"""The doctor on disks: which file system, which disk, how much room, with real ones where that is possible."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import msgspec
import pytest

from scpln_backup.model import Outcome, RunRecord, Trigger
from scpln_backup.operations.doctor import folders, mounts, room
from scpln_backup.operations.doctor.finding import Grade
from scpln_backup.operations.doctor.mounts import Mount
from scpln_backup.rules.forecast import Outlook
from support.clinic import Clinic
from support.faults import why_impossible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scpln_backup.app import App

MIB = 1 << 20
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=ZoneInfo("Asia/Tokyo"))

MOUNTINFO = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,discard
30 27 8:17 / /var/backups rw,relatime shared:7 master:3 - xfs /dev/sdb1 rw
31 27 0:50 / /mnt/with\040space rw - nfs4 nas:/export/my\040backups rw,vers=4.2
32 30 0:51 / /var/backups/scpln rw - tmpfs tmpfs rw
33 27 0:52 /@home /home rw - btrfs /dev/vdc rw
"""


@pytest.fixture
def clinic(tmp_path: Path) -> Clinic:
    return Clinic(tmp_path)


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    made = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def ext4(folder: Path, *options: str, size: str = "16M") -> Iterator[Path]:
    """A file system of its own in a file beside the folder."""
    image = folder.with_name(f"{folder.name}.img")
    subprocess.run(["truncate", "-s", size, image], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", *options, image], check=True)
    with mounted(folder, "-o", "loop", str(image)):
        yield folder


class TestMounts:
    def test_the_deepest_and_the_latest_counts(self) -> None:
        found = mounts.mounts(MOUNTINFO.strip())
        by_point = {mount.point: mount for mount in found}
        assert by_point["/mnt/with space"] == Mount("/mnt/with space", "nfs4", "nas:/export/my backups", "0:50")
        assert by_point["/mnt/with space"].network
        assert mounts.mount_of(Path("/"), found).device == "254:0"
        assert mounts.mount_of(Path("/usr/no/such/folder"), found).point == "/"
        over = [*found, Mount("/", "overlay", "over", "0:99")]
        assert mounts.mount_of(Path("/etc"), over).device == "0:99"

    def test_this_hosts_own(self, tmp_path: Path) -> None:
        mount = mounts.mount_of(tmp_path, mounts.mounts())
        number = tmp_path.stat().st_dev
        assert mount.device == f"{os.major(number)}:{os.minor(number)}"

    def test_what_fstab_mounts_for_a_path(self) -> None:
        fstab = "# <fs> <point> <type>\nUUID=1 / ext4 defaults 0 1\nUUID=2 /var/backups ext4 nofail 0 2\n"
        fstab += "UUID=3 none swap sw 0 0\nUUID=4 /var/backups/my\\040disk xfs defaults 0 2\n"
        assert mounts.expected_mount(Path("/var/backups/scpln"), fstab) == "/var/backups"
        assert mounts.expected_mount(Path("/var/backups/my disk/x"), fstab) == "/var/backups/my disk"
        assert mounts.expected_mount(Path("/var/backups2/scpln"), fstab) is None
        assert mounts.expected_mount(Path("/srv"), fstab) is None

    def test_down_to_the_disks(self, tmp_path: Path) -> None:
        """As /sys has them: a partition lies in its disk's folder, a volume names its parts."""
        devices = tmp_path / "devices"
        (devices / "sda" / "sda1").mkdir(parents=True)
        (devices / "sda" / "sda1" / "partition").write_text("1\n", encoding="utf-8")
        (devices / "sda" / "slaves").mkdir()
        (devices / "sdb" / "slaves").mkdir(parents=True)
        (devices / "dm-0" / "slaves").mkdir(parents=True)
        (devices / "dm-0" / "slaves" / "sda1").symlink_to(devices / "sda" / "sda1")
        (devices / "dm-0" / "slaves" / "sdb").symlink_to(devices / "sdb")
        numbers = tmp_path / "block"
        numbers.mkdir()
        for number, path in (("8:1", "sda/sda1"), ("8:16", "sdb"), ("253:0", "dm-0")):
            (numbers / number).symlink_to(devices / path)

        def disks(device: str) -> frozenset[str]:
            return mounts.disks(Mount("/", "ext4", "", device), numbers)

        assert disks("8:1") == {"sda"}
        assert disks("8:16") == {"sdb"}
        assert disks("253:0") == {"sda", "sdb"}
        assert disks("9:9") == frozenset()
        assert disks("0:44") == frozenset()


class TestApart:
    ROOT = Mount("/var/backups", "ext4", "/dev/sdb1", "8:17")
    DATABASE = Mount("/", "ext4", "/dev/sda1", "8:1")

    @pytest.mark.parametrize(
        ("root", "root_disks", "grade", "words"),
        [
            (ROOT, {"sdb"}, Grade.OK, "on another disk (sdb; the database: sda)"),
            (ROOT, {"sda", "sdb"}, Grade.WARNING, "the database's own disk (sda)"),
            (DATABASE, {"sda"}, Grade.WARNING, "the database's own file system (/)"),
            (ROOT, set(), Grade.OK, "cannot be told"),
            (Mount("/mnt", "nfs4", "nas:/b", "0:50"), set(), Grade.OK, "network file system (nfs4, nas:/b)"),
            (Mount("/mnt", "tmpfs", "tmpfs", "0:51"), set(), Grade.CRITICAL, "in memory (tmpfs)"),
        ],
    )
    def test_what_is_said(self, root: Mount, root_disks: set[str], grade: Grade, words: str) -> None:
        verdict = folders.judge_apart(root, self.DATABASE, frozenset(root_disks), frozenset({"sda"}))
        assert verdict.grade is grade
        assert words in verdict.detail

    def test_one_file_system_for_both(self, clinic: Clinic) -> None:
        finding = clinic.found("backup-disk")
        assert finding.level is Grade.WARNING
        assert "file system" in finding.detail
        assert "another disk" in (finding.advice or "")

    def test_a_file_system_of_its_own_in_a_file_on_the_same_disk(self, clinic: Clinic) -> None:
        with ext4(clinic.root):
            finding = clinic.found("backup-disk")
        if "cannot be told" in finding.detail:
            pytest.skip("this host's kernel does not tell of its disk")
        assert finding.level is Grade.WARNING
        assert "in a file system of its own" in finding.detail

    def test_memory(self, clinic: Clinic) -> None:
        with mounted(clinic.root, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
            finding = clinic.found("backup-disk")
        assert finding.level is Grade.CRITICAL
        assert "gone after a reboot" in finding.detail


class TestRoom:
    def test_a_disk_that_is_too_small_for_tonight(self, clinic: Clinic) -> None:
        with mounted(clinic.root, "-t", "tmpfs", "-o", "size=2m", "tmpfs"):
            finding = clinic.found("room-tonight")
        assert finding.level is Grade.CRITICAL
        assert "2.0 MiB free, and a run needs 17 MiB" in finding.detail
        assert "make room" in (finding.advice or "")

    def test_one_that_the_sweep_makes_large_enough(self, clinic: Clinic) -> None:
        with mounted(clinic.root, "-t", "tmpfs", "-o", "size=24m", "tmpfs"):
            clinic.backup()
            clinic.legacy("scpln-20250101_0230.db.gz", days_old=99, content=os.urandom(10 * MIB))
            finding = clinic.found("room-tonight")
            assert finding.level is Grade.WARNING
            assert "only the sweep before it gives 10 MiB more" in finding.detail

    def test_a_disk_that_is_full_to_the_last_byte(self, clinic: Clinic) -> None:
        with mounted(clinic.root, "-t", "tmpfs", "-o", "size=64k", "tmpfs"):
            (clinic.root / "other").write_bytes(b"x" * 65536)
            finding = clinic.found("backup-root")
            assert sorted(path.name for path in clinic.root.iterdir()) == ["other"]
        assert finding.level is Grade.CRITICAL
        assert "No space left on device" in finding.detail
        assert "make room" in (finding.advice or "")

    def test_a_disk_that_is_read_only(self, clinic: Clinic) -> None:
        with mounted(clinic.root, "-t", "tmpfs", "-o", "ro", "tmpfs"):
            finding = clinic.found("backup-root")
        assert finding.level is Grade.CRITICAL
        assert "Read-only file system" in finding.detail
        assert f"mount -o remount,rw {clinic.root}" in (finding.advice or "")

    def test_no_room_for_more_files(self, clinic: Clinic) -> None:
        with ext4(clinic.root, "-N", "16", size="4M"):
            for number in range(40):
                try:
                    (clinic.root / str(number)).touch()
                except OSError:
                    break
            found = clinic.examined()
        assert found["inodes"].level is Grade.CRITICAL
        assert "0 more files fit" in found["inodes"].detail
        assert found["backup-root"].level is Grade.CRITICAL

    def test_room_for_a_restore(self, clinic: Clinic) -> None:
        clinic.backup()
        original = clinic.source.read_bytes()
        with mounted(clinic.source.parent, "-t", "tmpfs", "-o", "size=4m", "tmpfs"):
            clinic.source.write_bytes(original)
            finding = clinic.found("restore-room")
        assert finding.level is Grade.CRITICAL
        assert "a restore needs 17 MiB beside the old database" in finding.detail


@pytest.mark.faults
@pytest.mark.skipif(why_impossible() is not None, reason=str(why_impossible()))
class TestBrokenFileSystem:
    """File systems that nobody has at hand: their answers are put into the program's system calls."""

    @pytest.mark.parametrize(
        ("injected", "words"),
        [
            (["fsync:error=EIO:when=1"], "cannot sync a file: Input/output error"),
            (["fsync:error=EIO:when=2"], "cannot sync a folder: Input/output error"),
            (["flock:error=ENOLCK"], "cannot lock a file (flock): No locks available"),
            (["renameat2:error=EINVAL", "link,linkat:error=EPERM"], "cannot rename without overwriting"),
        ],
    )
    def test_what_an_artifact_needs_is_missing(self, clinic: Clinic, injected: list[str], words: str) -> None:
        clinic.root.mkdir()
        finding = under_strace(clinic, injected)
        assert finding["level"] == "critical"
        assert f"{clinic.root}: {words}" in finding["detail"]
        assert finding["advice"]
        assert list(clinic.root.iterdir()) == [], "nothing stays"

    def test_a_link_does_where_the_flag_is_not_known(self, clinic: Clinic) -> None:
        clinic.root.mkdir()
        assert under_strace(clinic, ["renameat2:error=EINVAL"])["level"] == "ok"


def under_strace(clinic: Clinic, injected: list[str]) -> dict[str, str]:
    """The finding on the backup root when system calls are answered so."""
    faults = [word for fault in injected for word in ("-e", f"inject={fault}")]
    traced = ",".join(fault.partition(":")[0] for fault in injected)
    strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", os.devnull, "-e", f"trace={traced}", *faults]
    command = [*strace, *clinic.command("doctor", "--json")]
    done = subprocess.run(command, env=clinic.environment(), capture_output=True, text=True, check=False)
    (finding,) = [each for each in json.loads(done.stdout) if each["check"] == "backup-root"]
    return finding


class TestMonth:
    def test_a_history_that_fills_the_disk(self, clinic: Clinic) -> None:
        """Of a database that grew by 8 MiB a day: 200 MiB do not last a month."""
        with mounted(clinic.root, "-t", "tmpfs", "-o", "size=200m", "tmpfs"):
            clinic.backup()
            app = clinic.app()
            grew(app, days=20, growth=8 * MIB)
            finding = clinic.found("room-in-30-days")
            assert finding.level is Grade.WARNING
            assert "room runs out on 20" in finding.detail
            assert "growing by 8.0 MiB a day (median of 20 runs in 19 days)" in finding.detail
            assert "lower [retention] days" in (finding.advice or "")
            assert clinic.found("room-tonight").level is Grade.OK

    def test_a_history_that_does_not(self, clinic: Clinic) -> None:
        clinic.backup()
        grew(clinic.app(), days=5, growth=1024)
        finding = clinic.found("room-in-30-days")
        assert finding.level is Grade.OK
        assert "the tightest run of 30 days leaves" in finding.detail
        assert "growing by 1.0 KiB a day" in finding.detail

    def test_no_history(self, clinic: Clinic) -> None:
        finding = clinic.found("room-in-30-days")
        assert finding.level is Grade.OK
        assert "a forecast of growth needs runs on two days" in finding.detail

    def test_what_is_said(self) -> None:
        short = Outlook(
            growth_bytes=3.5 * MIB, samples=12, days=11, short_at=NOW + timedelta(days=9), spare_bytes=-40 * MIB,
            tightest_at=NOW + timedelta(days=29), most_artifacts=40,
        )  # fmt: skip
        verdict = room.judge_month(short, ZoneInfo("Asia/Tokyo"))
        assert verdict.detail == (
            "room runs out on 2026-12-01, growing by 3.5 MiB a day (median of 12 runs in 11 days): in 30 days 40 MiB "
            "are lacking"
        )
        assert room.judge_month(msgspec.structs.replace(short, short_at=None), ZoneInfo("UTC")).grade is Grade.OK

    @pytest.mark.parametrize(
        ("free", "month", "grade"), [(5, 0, Grade.CRITICAL), (20, 90, Grade.WARNING), (500, 90, Grade.OK)]
    )
    def test_inodes(self, free: int, month: int, grade: Grade) -> None:
        assert room.judge_inodes(free, 10, month).grade is grade


def grew(app: App, days: int, growth: int) -> None:
    """Runs of the past, one a night, each of a database that was larger; the newest as large as today's."""
    catalog, now = app.catalog, app.now()
    with catalog._writing() as connection:
        connection.execute("DELETE FROM runs")
    size = app.house.source.stat().st_size
    for day in reversed(range(days)):
        at = now - timedelta(days=day, hours=1)
        record = RunRecord(
            id=catalog.begin_run(Trigger.SCHEDULE, at),
            trigger=Trigger.SCHEDULE,
            started_at=at,
            finished_at=at,
            outcome=Outcome.SUCCESS,
            raw_bytes=100 * MIB + size - day * growth,
            artifact_bytes=10 * MIB,
        )
        catalog.finish_run(record)


class TestStateFolder:
    def test_on_a_network_file_system(self, clinic: Clinic) -> None:
        """None can be mounted here, so the mount is told to be one."""
        clinic.state.mkdir(0o700)
        patient = clinic.patient()
        patient.__dict__["mounts"] = [Mount("/", "nfs4", "nas:/root", "0:50")]
        verdict = folders.state_folder(patient)
        assert verdict.grade is Grade.CRITICAL
        assert "network file system (nfs4)" in verdict.detail
        assert "local disk" in (verdict.advice or "")

    def test_in_memory(self, clinic: Clinic) -> None:
        with mounted(clinic.state, "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs"):
            finding = clinic.found("state-folder")
        assert finding.level is Grade.WARNING
        assert "in memory (tmpfs)" in finding.detail
