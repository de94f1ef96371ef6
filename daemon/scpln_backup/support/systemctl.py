"""Units of systemd, by its own command: stopped, started, looked at.

`systemctl` rather than D-Bus: it is what an operator would type, and what it says is what they find in books.
"""

from __future__ import annotations

from scpln_backup.errors import UnitError
from scpln_backup.support.command import Answer, ask

_LOOK_SECONDS = 10.0
_AT_REST = frozenset({"inactive", "failed"})
# How systemctl says that it may not: polkit's words and D-Bus's.
_DENIED = ("authentication required", "access denied", "permission denied", "not authorized")
# The kinds of units (systemd.unit(5)); a name that ends in none of them is a service's.
_KINDS = (
    *(".service", ".socket", ".device", ".mount", ".automount", ".swap", ".target", ".path", ".timer", ".slice"),
    ".scope",
)
_NO_SYSTEMD = ("not been booted with systemd", "host is down", "failed to connect to bus")


def full_name(unit: str) -> str:
    """The unit's name as systemd completes it: with its ending."""
    return unit if unit.endswith(_KINDS) else f"{unit}.service"


def exists(unit: str) -> bool:
    """Whether systemd knows the unit. UnitError for one that it knows and cannot use: masked, or its file is wrong."""
    state = _property(unit, "LoadState")
    if state not in {"loaded", "not-found"}:
        raise UnitError(
            f"{unit}: systemd says it is {state}, and it could not be started again; see: systemctl cat {unit}"
        )
    return state == "loaded"


def is_active(unit: str) -> bool:
    """Whether anything of the unit runs: also while it is on its way up or down."""
    return _property(unit, "ActiveState") not in _AT_REST


def is_up(unit: str) -> bool:
    """Whether the unit runs and will go on: not while it is on its way up or down."""
    return _property(unit, "ActiveState") == "active"


def stop(unit: str, timeout_seconds: float) -> None:
    """Stop the unit and wait until it has; UnitError when that fails, takes longer, or it is running again."""
    answer = _systemctl(unit, "stop", timeout_seconds=timeout_seconds)
    if answer.exit_code is None:
        raise UnitError(f"{unit}: did not stop within {timeout_seconds:g} s; see: journalctl -u {unit}")
    if answer.exit_code != 0:
        raise _failure(unit, "did not stop", answer)
    if is_active(unit):
        raise UnitError(
            f"{unit}: was stopped and runs again; a socket, a timer or somebody starts it, stop that first: "
            f"systemctl list-dependencies --reverse {unit}"
        )


def start(unit: str, timeout_seconds: float) -> None:
    """Start the unit and wait until systemd calls it started; UnitError when that fails or takes longer.

    That says nothing yet about the application: see `stages.probe`.
    """
    # A unit that failed several times in a row is refused its next start (StartLimitBurst=), which would also keep
    # the old database's application down after a rollback. Not having failed is no reason to stop here.
    _systemctl(unit, "reset-failed", timeout_seconds=_LOOK_SECONDS)
    answer = _systemctl(unit, "start", timeout_seconds=timeout_seconds)
    if answer.exit_code is None:
        raise UnitError(f"{unit}: did not start within {timeout_seconds:g} s; see: journalctl -u {unit}")
    if answer.exit_code != 0:
        raise _failure(unit, "did not start", answer)
    if _property(unit, "ActiveState") == "failed":
        raise UnitError(f"{unit}: started and failed at once; see: journalctl -u {unit}")


def _property(unit: str, name: str) -> str:
    answer = _systemctl(unit, "show", f"--property={name}", "--value", timeout_seconds=_LOOK_SECONDS)
    if answer.exit_code is None:
        raise UnitError(f"{unit}: systemd did not answer within {_LOOK_SECONDS:g} s; see: journalctl -u init.scope")
    value = answer.text.strip()
    if answer.exit_code != 0 or not value:
        raise _failure(unit, "cannot be looked at", answer)
    return value


def _systemctl(unit: str, verb: str, *options: str, timeout_seconds: float) -> Answer:
    # Nobody could type a password: the command has no terminal.
    argv = ["systemctl", "--no-pager", "--no-ask-password", verb, *options, "--", unit]
    try:
        return ask(argv, timeout_seconds=timeout_seconds)
    except OSError as error:
        raise UnitError(
            f"{unit}: systemctl cannot be run ({error.strerror}); where there is no systemd, set [service] units = [] "
            f"and stop the application by hand"
        ) from error


def _failure(unit: str, what: str, answer: Answer) -> UnitError:
    lines = [line for line in answer.text.splitlines() if line.strip()]
    said = " ".join(lines[0].split()) if lines else f"exit code {answer.exit_code}"
    words = answer.text.lower()
    if any(word in words for word in _NO_SYSTEMD):
        advice = "where there is no systemd, set [service] units = [] and stop the application by hand"
    elif any(word in words for word in _DENIED):
        advice = "run it as root, or have polkit allow it"
    else:
        advice = f"see: journalctl -u {unit}"
    return UnitError(f"{unit}: {what}: systemctl says: {said.rstrip('.')}; {advice}")
