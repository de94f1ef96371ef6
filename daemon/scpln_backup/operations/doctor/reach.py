"""Services that have nothing to ask without side effects: are they there at all?"""

from __future__ import annotations

from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from scpln_backup.errors import DeliveryError
from scpln_backup.support.text import one_line

_ANSWER_SECONDS = 10.0


def reachable(url: str) -> str:
    """Whether a server answers there, whatever it says; with TLS it has to prove who it is."""
    status = _get(url)
    return f"{urlsplit(url).netloc} answers ({status}); whether it knows the routing key shows with the first event"


def ready(url: str) -> str:
    """What a Pushgateway says of itself at /-/ready."""
    address = url.rstrip("/") + "/-/ready"
    status = _get(address)
    if status != 200:  # noqa: PLR2004 - HTTP's OK
        raise DeliveryError(f"{address}: answers {status}; is a Pushgateway there?", permanent=True)
    return f"{url} is ready"


def _get(url: str) -> int:
    """The status of an answer. DeliveryError: there is none. Proxies of the environment are used, as by the clients."""
    request = Request(url, headers={"User-Agent": "scpln-backup"})  # noqa: S310 - the config wants http(s)
    try:
        with urlopen(request, timeout=_ANSWER_SECONDS) as answer:  # noqa: S310 - as above
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code
    except URLError as error:
        reason = one_line(error.reason) if isinstance(error.reason, BaseException) else str(error.reason)
        raise DeliveryError(f"{urlsplit(url).netloc}: {reason}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise DeliveryError(f"{urlsplit(url).netloc}: {one_line(error)}") from error
