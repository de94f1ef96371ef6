"""A real Prometheus scrapes the real daemon: what it stores is what the catalog says."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
import urllib.request
from contextlib import ExitStack
from datetime import UTC

import pytest

from scpln_backup.records.catalog import Catalog
from support.daemon_process import WAIT, DaemonProcess
from support.place import Place
from support.prometheus import free_address, missing, prometheus

CONNECTIONS = 1000
SCRAPES = 5
LABELS = {"database": "scpln", "environment": "test"}

CONFIG = """\
scrape_configs:
  - job_name: scpln-backup
    scrape_interval: 200ms
    scrape_timeout: 200ms
    static_configs:
      - targets: ["{target}"]
"""

REASON = missing("prometheus", "promtool")
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture
def place(tmp_path):
    """With a fixed port, for Prometheus has to find the daemon again after a restart."""
    place = Place(tmp_path)
    place.target = free_address()
    place.config.write_text(place.config.read_text().replace("127.0.0.1:0", place.target))
    return place


def catalog(place):
    return Catalog.reader(place.state / "catalog.db", UTC)


def test_what_prometheus_stores_is_what_the_catalog_says(place, tmp_path):
    with ExitStack() as stack:
        daemon = stack.enter_context(DaemonProcess(place))
        server = stack.enter_context(prometheus(tmp_path, CONFIG.format(target=place.target)))
        server.wait_for("up == 1")
        assert server.wait_for("backup_success") == [(LABELS, 0.0)]

        daemon.send(signal.SIGUSR1)
        server.wait_for("backup_success == 1 and backup_running == 0")
        run = catalog(place).last_good()
        summary = catalog(place).artifact_summary()
        expected = {
            "backup_running": 0,
            "backup_last_size_bytes": run.artifact_bytes,
            "backup_source_size_bytes": run.raw_bytes,
            "backup_last_success_timestamp_seconds": run.finished_at.timestamp(),
            "backup_last_run_timestamp_seconds": run.finished_at.timestamp(),
            "backup_writer_blocked_seconds": run.writer_blocked_seconds,
            "backup_artifacts": summary.count,
            "backup_artifacts_size_bytes": summary.bytes,
            "backup_verified_artifacts": 1,
            "backup_retention_deleted_total": 0,
        }
        assert {name: server.query(name) for name in expected} == {
            name: [(LABELS, pytest.approx(value))] for name, value in expected.items()
        }
        assert server.query("backup_runs_total") == [(LABELS | {"trigger": "signal", "outcome": "success"}, 1.0)]
        stages = {labels.pop("stage"): value for labels, value in server.query("backup_last_duration_seconds")}
        assert stages == {**run.stage_seconds, "total": run.duration_seconds}
        assert server.value("backup_next_run_timestamp_seconds") > time.time()
        # Prometheus asks for OpenMetrics, where the name of a counter's family is without _total.
        types = {name: found[0]["type"] for name, found in server.ask("/api/v1/metadata").items()}
        counters = {name for name, kind in types.items() if name.startswith("backup_") and kind == "counter"}
        notified = {"backup_notification_sent", "backup_notification_failures"}
        assert counters == {"backup_runs", "backup_retention_deleted"} | notified

        # A failed run, and the recovery from it.
        moved = place.source.with_name("moved.db")
        place.source.rename(moved)
        daemon.send(signal.SIGUSR1)
        server.wait_for("backup_success == 0")
        assert server.value('backup_runs_total{outcome="failed"}') == 1
        assert server.value("backup_last_success_timestamp_seconds") == pytest.approx(run.finished_at.timestamp())
        moved.rename(place.source)
        daemon.send(signal.SIGUSR1)
        server.wait_for("backup_success == 1")
        daemon.stop()


def test_counters_go_on_where_they_were_after_a_restart(place, tmp_path):
    with prometheus(tmp_path, CONFIG.format(target=place.target)) as server:
        with DaemonProcess(place) as daemon:
            daemon.send(signal.SIGUSR1)
            server.wait_for("backup_runs_total == 1")
            daemon.stop()
        server.wait_for("up == 0")
        with DaemonProcess(place) as daemon:
            server.wait_for("up == 1")
            assert server.wait_for("backup_success") == [(LABELS, 1.0)]
            daemon.send(signal.SIGUSR1)
            server.wait_for("backup_runs_total == 2")
            assert server.value("resets(backup_runs_total[10m])") == 0
            assert server.value("backup_runs_total - min_over_time(backup_runs_total[10m])") == 1
            daemon.stop()


def test_a_thousand_silent_and_half_open_connections_do_not_stop_the_scrapes(place, tmp_path):
    host, port = place.target.split(":")
    with ExitStack() as stack:
        daemon = stack.enter_context(DaemonProcess(place))
        server = stack.enter_context(prometheus(tmp_path, CONFIG.format(target=place.target)))
        server.wait_for("up == 1")
        for number in range(CONNECTIONS):
            client = stack.enter_context(socket.create_connection((host, int(port)), timeout=WAIT))
            if number % 2:
                client.sendall(b"GET /metrics HTTP/1.1\r\nHost: slow\r\nX-Never")
        before = server.value("count_over_time(up[10m])")
        server.wait_for(f"count_over_time(up[10m]) >= {before + SCRAPES}")
        assert server.value("count_over_time(up[10m]) - sum_over_time(up[10m])") == 0
        daemon.send(signal.SIGUSR1)
        server.wait_for("backup_success == 1")
        daemon.stop()


def test_promtool_finds_no_fault_with_the_metrics(place):
    with DaemonProcess(place) as daemon:
        daemon.send(signal.SIGUSR1)
        daemon.wait_for("backup success")
        with urllib.request.urlopen(f"{daemon.url}metrics", timeout=5) as answer:
            text = answer.read()
        daemon.stop()
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
