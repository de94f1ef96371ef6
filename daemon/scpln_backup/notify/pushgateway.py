"""The Pushgateway: the metrics of one group, put in the place of those pushed before."""

from __future__ import annotations

from http.client import HTTPException, InvalidURL
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from prometheus_client import push_to_gateway

from scpln_backup.errors import DeliveryError
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prometheus_client.registry import Collector

_SAID_LIMIT = 300
_BAD_REQUEST = 400
_REQUEST_TIMEOUT = 408
_TOO_MANY = 429
_SERVER_ERRORS = 500


class Pushgateway:
    """`group`: labels that tell this program's metrics from those of others; they are a part of the address.

    `timeout_seconds`: for connecting, and for each wait for an answer.
    """

    def __init__(self, url: str, *, job: str, group: Mapping[str, str], timeout_seconds: float = 10.0) -> None:
        self._url = url
        self._job = job
        self._group = dict(group)
        self._timeout_seconds = timeout_seconds

    def push(self, metrics: Collector) -> None:
        """Replace the group by `metrics`: what is not among them is gone. Pushed again, nothing changes.

        Raises DeliveryError; never an unsure one, for a push may be repeated.
        """
        try:
            push_to_gateway(
                self._url, job=self._job, registry=metrics, grouping_key=self._group, timeout=self._timeout_seconds
            )
        except HTTPError as error:
            with error:
                raise self._refused(error) from error
        except (InvalidURL, UnicodeError):  # the text quotes the address, which may have a password in it
            raise DeliveryError(
                "Pushgateway: [pushgateway] url is no address that can be pushed to; write it as http://HOST:PORT",
                permanent=True,
            ) from None
        except URLError as error:
            raise self._unreached(error.reason if isinstance(error.reason, OSError) else error) from error
        except (OSError, HTTPException) as error:
            raise self._unreached(error) from error

    def _unreached(self, error: OSError | HTTPException) -> DeliveryError:
        return DeliveryError(f"Pushgateway: no answer from {self._host}: {one_line(error)}")

    def _refused(self, error: HTTPError) -> DeliveryError:
        answer = f"Pushgateway: {self._host} answered {error.code}: {_said(error)}"
        if error.code == _BAD_REQUEST:
            return DeliveryError(
                f"{answer}; do other metrics of the same names, pushed by something else, contradict?", permanent=True
            )
        if error.code >= _SERVER_ERRORS or error.code in (_REQUEST_TIMEOUT, _TOO_MANY):
            return DeliveryError(answer, retry_after_seconds=_seconds(error.headers.get("Retry-After")))
        return DeliveryError(f"{answer}; check [pushgateway] url", permanent=True)

    @property
    def _host(self) -> str:
        return urlsplit(self._url).netloc.rpartition("@")[2]


def _said(error: HTTPError) -> str:
    try:
        body = error.read(_SAID_LIMIT).decode(errors="replace")
    except (OSError, HTTPException):
        body = ""
    return " ".join(body.split()) or str(error.reason)


def _seconds(value: str | None) -> float | None:
    return float(value) if value is not None and value.isascii() and value.isdigit() else None
