"""support/pace.py: bytes counted against a clock that only the test moves."""

from hypothesis import given
from hypothesis import strategies as st

from scpln_backup.support.pace import Pace

MIB = 1024 * 1024


def run(pace: Pace, steps: list[tuple[int, float]]) -> list[tuple[float, int]]:
    """Do each step's bytes, wait as told, then do something else for its seconds; when each was done, and how much."""
    now, done = 1000.0, []
    for size, elsewhere in steps:
        done.append((now, size))
        now += pace.delay(size, now) + elsewhere
    return done


def test_a_steady_stream_takes_its_time() -> None:
    done = run(Pace(8 * MIB), [(MIB, 0.0)] * 80)
    assert abs(done[-1][0] - done[0][0] - 79 / 8) < 0.11


def test_time_spent_otherwise_counts() -> None:
    """Reading and writing take time too: what is waited for is the rest."""
    done = run(Pace(8 * MIB), [(MIB, 0.1)] * 80)
    assert abs(done[-1][0] - done[0][0] - 79 / 8) < 0.11


def test_slower_than_the_limit_is_never_held_back() -> None:
    pace = Pace(8 * MIB)
    now = 0.0
    for _ in range(50):
        assert pace.delay(MIB // 4, now) == 0.0
        now += 0.05


def test_a_long_pause_earns_no_rush() -> None:
    """After an hour of nothing the next second has the limit's bytes, not an hour's."""
    done = run(Pace(MIB), [(MIB // 4, 3600.0)] + [(MIB // 4, 0.0)] * 40)
    began = done[1][0]
    assert sum(size for at, size in done if began <= at < began + 1) <= MIB * 1.1 + MIB // 4


def test_no_limit() -> None:
    pace = Pace(0)
    assert [pace.delay(1 << 40, now) for now in (0.0, 0.0, 5.0)] == [0.0, 0.0, 0.0]


@given(
    rate=st.integers(1, 10_000),
    steps=st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 2)), min_size=1, max_size=40),
)
def test_no_stretch_of_time_has_more_than_its_share(rate: int, steps: list[tuple[int, float]]) -> None:
    """Whatever is done when: between any two moments the limit, a tenth of a second's saving, and one piece."""
    done = run(Pace(rate), steps)
    piece = max(size for size, _ in steps)
    for first in range(len(done)):
        size = 0
        for at, more in done[first:]:
            size += more
            assert size <= rate * (at - done[first][0] + 0.1) + piece + 1e-3 * rate
