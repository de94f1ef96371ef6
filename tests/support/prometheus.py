"""The real servers of a site's monitoring, of Debian's packages, on free ports of loopback."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

WAIT = 20.0
SCRAPE_LABELS = ("__name__", "instance", "job")

_POLL = 0.05


def missing(*programs: str) -> str | None:
    """Why tests that need these programs cannot run; None when they can."""
    absent = [program for program in programs if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


def free_address() -> str:
    """HOST:PORT on loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


def wait_until(condition: Callable[[], bool], state: Callable[[], object]) -> None:
    """Ask again and again, for nobody tells; `state` is said when it does not come true."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {state()}"
        time.sleep(_POLL)


class Api:
    """The HTTP API of a server at `address`."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, path: str, **parameters: str) -> Any:
        """The JSON document."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://{self.address}{path}?{query}", timeout=5) as answer:
            return json.load(answer)


class Prometheus(Api):
    def ask(self, path: str, **parameters: str) -> Any:
        return self.get(path, **parameters)["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Of each series its labels, without those of the scrape, and its value now."""
        return [
            (
                {key: value for key, value in series["metric"].items() if key not in SCRAPE_LABELS},
                float(series["value"][1]),
            )
            for series in self.ask("/api/v1/query", query=expression)["result"]
        ]

    def value(self, expression: str) -> float:
        """Of the only series."""
        ((_, value),) = self.query(expression)
        return value

    def wait_for(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Until the expression has a result; Prometheus tells nobody when it has scraped."""
        wait_until(lambda: bool(self.query(expression)), lambda: expression)
        return self.query(expression)

    def firing(self) -> list[dict[str, str]]:
        """The labels of the alerts that fire now."""
        return [labels for labels, _ in self.query('ALERTS{alertstate="firing"}')]


class Alertmanager(Api):
    def muted(self) -> list[dict[str, str]]:
        """The labels of the alerts that another one inhibits."""
        return [alert["labels"] for alert in self.get("/api/v2/alerts") if alert["status"]["inhibitedBy"]]


@contextmanager
def prometheus(folder: Path, config: str) -> Iterator[Prometheus]:
    """With the configuration `config`, its data and log in `folder`."""
    with _running(
        folder,
        config,
        ["prometheus", f"--storage.tsdb.path={folder / 'tsdb'}", "--rules.alert.resend-delay=1s"],
    ) as address:
        yield Prometheus(address)


@contextmanager
def alertmanager(folder: Path, config: str) -> Iterator[Alertmanager]:
    with _running(
        folder,
        config,
        ["prometheus-alertmanager", f"--storage.path={folder / 'alertmanager'}", "--cluster.listen-address="],
    ) as address:
        yield Alertmanager(address)


@contextmanager
def pushgateway(folder: Path) -> Iterator[Api]:
    with _running(folder, None, ["prometheus-pushgateway", "--persistence.file="]) as address:
        yield Api(address)


@contextmanager
def _running(folder: Path, config: str | None, command: Sequence[str]) -> Iterator[str]:
    """The address of a server that is ready."""
    address = free_address()
    arguments = [*command, f"--web.listen-address={address}"]
    if config is not None:
        file = folder / f"{command[0]}.yml"
        file.write_text(config, encoding="utf-8")
        arguments.append(f"--config.file={file}")
    output = folder / f"{command[0]}.log"
    with output.open("w") as log, subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as own:
        try:
            deadline = time.monotonic() + WAIT
            while not _ready(address):
                assert own.poll() is None, output.read_text(encoding="utf-8")
                assert time.monotonic() < deadline, output.read_text(encoding="utf-8")
                time.sleep(_POLL)
            yield address
        finally:
            own.kill()


def _ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError):
        return False
