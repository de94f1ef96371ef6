"""tests/bench: the measuring itself is run once, on a database that is too small to tell anything."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent / "bench" / "bench.py"


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="sqlite3 is not installed")
def test_a_page(tmp_path):
    chosen = ["--mib", "2", "--repeat", "1", "--limit", "5", "--only", "seed", "gzip, balanced"]
    command = [sys.executable, str(BENCH), *chosen, "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = done.stdout
    for table in ("the first night", "the second and the third night", "restore to a checked database"):
        assert f"## 2 MiB: {table}\n" in page
    for mode in ("rollback-journal", "WAL"):
        assert f"## 2 MiB, {mode} mode: beside a writer\n" in page
    rows = [line for line in page.splitlines() if line.startswith("| scpln-backup, gzip, balanced |")]
    assert len(rows) == 5
    assert "other rows" not in page
    assert "1 of 1 done" in page
    for goal in ("proven backup, `balanced`", "lock held", "a writer's p99", "restore, proven", "idle daemon"):
        (line,) = [line for line in page.splitlines() if line.startswith("| ") and goal in line]
        assert "not measured" not in line
    assert list(tmp_path.iterdir()) == []
