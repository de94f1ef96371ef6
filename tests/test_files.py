"""Files are published whole or not at all, and never over another."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scpln_backup.support import files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_publish_moves_the_file(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("new")
    files.publish(source, target)
    assert names(tmp_path) == ["target"]
    assert target.read_text() == "new"


def test_publish_never_overwrites(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("new")
    target.write_text("old")
    with pytest.raises(FileExistsError):
        files.publish(source, target)
    assert (source.read_text(), target.read_text()) == ("new", "old")
    target.unlink()
    target.symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        files.publish(source, target)


def publish_with(source: Path, target: Path, *faults: str) -> str:
    """Publish in a process whose system calls fail as told; returns the name of the error, or nothing."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    script = (
        "import sys; from pathlib import Path; from scpln_backup.support.files import publish\n"
        "try: publish(*map(Path, sys.argv[1:]))\n"
        "except OSError as error: print(type(error).__name__, error.errno)\n"
    )
    injected = [argument for fault in faults for argument in ("-e", f"inject={fault}")]
    command = ["strace", "-f", "-qq", "-o", "/dev/null", *injected, sys.executable, "-c", script, source, target]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.faults
@pytest.mark.parametrize("error", ["EINVAL", "ENOSYS", "EOPNOTSUPP"])
def test_publish_links_where_the_flag_is_unknown(tmp_path, error):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("new")
    target.write_text("old")
    assert publish_with(source, target, f"renameat2:error={error}").startswith("FileExistsError")
    assert (source.read_text(), target.read_text()) == ("new", "old")
    target.unlink()
    assert publish_with(source, target, f"renameat2:error={error}") == ""
    assert names(tmp_path) == ["target"]


@pytest.mark.faults
def test_publish_that_cannot_remove_the_old_name_publishes_nothing(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("new")
    assert publish_with(source, target, "renameat2:error=EINVAL", "/^unlink:error=EIO:when=1") == "OSError 5"
    assert names(tmp_path) == ["source"]


def test_publish_names_both_files_in_its_error(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        files.publish(tmp_path / "source", tmp_path / "target")
    assert (caught.value.filename, caught.value.filename2) == (str(tmp_path / "source"), str(tmp_path / "target"))


def test_of_many_publishers_one_wins(tmp_path):
    script = (
        "import sys; from pathlib import Path; from scpln_backup.support.files import publish\n"
        "source, target = map(Path, sys.argv[1:])\n"
        "sys.stdin.read()\n"
        "try: publish(source, target)\n"
        "except FileExistsError: sys.exit(9)\n"
    )
    children = []
    for number in range(4):
        source = tmp_path / f"source-{number}"
        source.write_text(str(number))
        command = [sys.executable, "-c", script, source, tmp_path / "target"]
        children.append(subprocess.Popen(command, stdin=subprocess.PIPE))
    for child in children:
        child.stdin.close()
    codes = [child.wait() for child in children]
    assert sorted(codes) == [0, 9, 9, 9]
    assert (tmp_path / "target").read_text() == str(codes.index(0))


def test_write_durably_replaces_with_the_mode_asked_for(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o644)
    before = os.umask(0o077)
    try:
        files.write_durably(path, b"new", 0o640)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert names(tmp_path) == ["file"]


def test_write_durably_without_overwriting(tmp_path):
    path = tmp_path / "file"
    files.write_durably(path, b"first", overwrite=False)
    with pytest.raises(FileExistsError):
        files.write_durably(path, b"second", overwrite=False)
    assert path.read_bytes() == b"first"
    assert names(tmp_path) == ["file"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    """The limit on a file's size fails a write half way, as a full disk does."""
    path = tmp_path / "file"
    path.write_text("old")
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from scpln_backup.support.files import write_durably\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_durably(Path(sys.argv[1]), bytes(5000))\n"
        "except OSError as error: print(error.filename)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_make_folder_is_private_and_leaves_what_is_there(tmp_path):
    tmp_path.chmod(0o755)
    files.make_folder(tmp_path / "a" / "b")
    assert [path.stat().st_mode & 0o777 for path in (tmp_path, tmp_path / "a", tmp_path / "a" / "b")] == [
        0o755,
        0o700,
        0o700,
    ]
    files.make_folder(tmp_path / "a" / "b")


def test_make_folder_refuses_a_file_in_its_place(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(FileExistsError):
        files.make_folder(tmp_path / "a")


def test_temporary_names_are_told_from_others():
    name = files.temporary_name("scpln-20261122_0230.db.gz.json")
    assert name.startswith(".")
    assert not name.endswith((".db.gz", ".db.zst"))
    assert files.temporary_target(name) == "scpln-20261122_0230.db.gz.json"
    for other in ("scpln-20261122_0230.db.gz", ".hidden.tmp", "a.0123456789abcdef.tmp"):
        assert files.temporary_target(other) is None
