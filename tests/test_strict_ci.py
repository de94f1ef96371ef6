"""A skip turns a CI run red, and only a CI run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SKIPPED = "import pytest\n\n@pytest.mark.skip(reason='no strace')\ndef test_a(): ...\n\ndef test_b(): ...\n"
EXPECTED_FAILURE = "import pytest\n\n@pytest.mark.xfail\ndef test_a(): assert False\n"


def run_pytest(folder: Path, source: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(source)
    (folder / "conftest.py").write_text(
        "from support.strict_ci import SkipsFail\n\n"
        "def pytest_configure(config):\n    config.pluginmanager.register(SkipsFail())\n"
    )
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, folder],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_skip_fails_the_session_and_is_named(tmp_path):
    done = run_pytest(tmp_path, SKIPPED)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "test_a" in done.stdout
    assert "no strace" in done.stdout


def test_an_expected_failure_is_no_skip(tmp_path):
    assert run_pytest(tmp_path, EXPECTED_FAILURE).returncode == pytest.ExitCode.OK
