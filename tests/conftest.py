"""Fixtures that several test files use, and the rules of a run in CI."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from support.box_parts import PartError, libraries, root_file_system
from support.strict_ci import SkipsFail
from support.systemd_box import SystemdBox, why_impossible

SAMPLE = Path(__file__).with_name("data") / "scpln-sample.db"

# A loaded CI machine makes single examples slow, which says nothing about the code.
settings.register_profile("scpln", deadline=None, print_blob=True)
settings.load_profile("scpln")


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CI") == "true":
        config.pluginmanager.register(SkipsFail())


@pytest.fixture(scope="session", autouse=True)
def ways_open(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests in which another user looks at files have to let that user through pytest's own folders, too."""
    base = tmp_path_factory.getbasetemp()
    for folder in (base, base.parent):
        if folder.name.startswith(("pytest-", "popen-")):
            folder.chmod(folder.stat().st_mode | 0o011)


@pytest.fixture
def sample_database(tmp_path: Path) -> Path:
    """A copy of the application's sample database, alone in a folder of its own."""
    folder = tmp_path / "data"
    folder.mkdir()
    return Path(shutil.copy(SAMPLE, folder / "scpln.db"))


@pytest.fixture(scope="session")
def box_parts() -> tuple[Path, Path]:
    """The box's root file system and the program's libraries, from the cache or built now."""
    reason = why_impossible()
    if reason is not None:
        pytest.skip(reason)
    try:
        return root_file_system(), libraries()
    except PartError as error:
        pytest.skip(str(error))


@pytest.fixture
def box(box_parts: tuple[Path, Path]) -> Iterator[SystemdBox]:
    """A systemd of the test's own, started in half a second, with scpln-backup installed."""
    with SystemdBox(*box_parts) as started:
        yield started


@pytest.fixture(scope="module")
def module_box(box_parts: tuple[Path, Path]) -> Iterator[SystemdBox]:
    """One box for all tests of a file, for those that only look or clean up after themselves."""
    with SystemdBox(*box_parts) as started:
        yield started
