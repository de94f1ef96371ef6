"""In CI nothing may be skipped: a skip there hides a missing package and looks like a pass."""

from pathlib import Path

import pytest


class SkipsFail:
    """A pytest plugin that fails the session when any test or file was skipped, and lists them."""

    def __init__(self) -> None:
        self._skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # An expected failure is reported as skipped too, and is none.
        if report.skipped and not hasattr(report, "wasxfail"):
            self._note(report.nodeid, report.longrepr)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._note(report.nodeid, report.longrepr)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._skipped and session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._skipped:
            terminalreporter.section("skipped, which CI does not allow", red=True)
            for line in self._skipped:
                terminalreporter.line(line)

    def _note(self, nodeid: str, longrepr: object) -> None:
        match longrepr:
            case (file, line, reason):
                why = str(reason).removeprefix("Skipped: ")
                self._skipped.append(f"{nodeid} ({Path(str(file)).name}:{line}): {why}")
            case _:
                self._skipped.append(f"{nodeid}: {longrepr}")
