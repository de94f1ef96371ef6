"""The channels as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, tzinfo

    from scpln_backup.records.outbox import ChannelState


def channels(found: Sequence[ChannelState], configured: Sequence[str], now: datetime, zone: tzinfo) -> None:
    """One line a channel, and what is wrong with it under it."""
    known = {state.name: state for state in found}
    for name in configured:
        state = known.get(name)
        if state is None:
            click.echo(f"{name:<12} {click.style('new', fg='yellow')}: nothing has happened since it was configured")
        elif state.failing_since is not None:
            since = _at(state.failing_since, zone)
            click.echo(f"{name:<12} {click.style('failing', fg='red')} since {since}, {_waiting(state, zone)}")
            click.echo(f"{'':<12} {state.error}")
            if state.retry_at is not None and state.retry_at > now:
                click.echo(f"{'':<12} tried again {_at(state.retry_at, zone)}, or at once: scpln-backup notify send")
        else:
            last = f"last sent {_at(state.sent_at, zone)}" if state.sent_at is not None else "nothing sent yet"
            click.echo(f"{name:<12} {click.style('ok', fg='green')}, {last}, {_waiting(state, zone)}")


def tested(channel: str, error: str | None, seconds: float) -> None:
    if error is None:
        click.echo(f"{channel:<12} {click.style('ok', fg='green')}, a test message got through in {seconds:.1f} s")
    else:
        click.echo(f"{channel:<12} {click.style('failed', fg='red')}: {error}")


def _waiting(state: ChannelState, zone: tzinfo) -> str:
    if not state.waiting or state.oldest_at is None:
        return "nothing waits"
    return f"{state.waiting} waiting since {_at(state.oldest_at, zone)}"


def _at(moment: datetime, zone: tzinfo) -> str:
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M:%S}"
