"""Accept-Language: what the reader likes best of what there is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scpln_backup.config.schema import Locale
from scpln_backup.service.page.language import preferred

JA, EN = Locale.JA, Locale.EN


@pytest.mark.parametrize(
    ("header", "default", "expected"),
    [
        ("", EN, EN),
        ("", JA, JA),
        ("ja", EN, JA),
        ("ja-JP", EN, JA),
        ("JA-jp", EN, JA),
        ("ja-Hira-JP", EN, JA),
        ("en-US,en;q=0.9", JA, EN),
        ("ja,en-US;q=0.9,en;q=0.8", EN, JA),
        ("en;q=0.8, ja;q=0.9", EN, JA),
        ("en;q=0.8,ja;q=0.8", JA, EN),  # alike: the one named first
        ("ja ; q=0.5 , en;q=0.4", EN, JA),
        ("ja;Q=0.5,en;q=0.4", EN, JA),
        ("fr-FR,fr;q=0.9,de;q=0.5", JA, JA),  # none of ours
        ("fr-FR,fr;q=0.9,ja;q=0.1", EN, JA),
        ("jam", EN, EN),  # another language that begins alike
        ("*", EN, EN),
        ("*", JA, JA),
        ("fr,*;q=0.5", JA, JA),
        ("en;q=0.5,*", EN, JA),  # everything else is liked better
        ("*;q=0.5,ja", EN, JA),
        ("ja;q=0,*", JA, EN),
        ("ja;q=0", JA, JA),  # nothing is left, and something has to be shown
        ("en;q=0,ja;q=0,*;q=0", EN, EN),
        ("ja;q=0.000,en;q=0.001", JA, EN),
        ("ja;q=2,en;q=0.1", JA, EN),  # no weight goes beyond 1: what is no range is left out
        ("ja;q=0.1234,en;q=0.1", JA, EN),
        ("ja;q=nan,en;q=0.1", JA, EN),
        (";;q=1,,ja_JP,en", JA, EN),
        ("ja\r\nSet-Cookie: x", EN, EN),
    ],
)
def test_preference(header, default, expected):
    assert preferred(header, default) is expected


@given(st.text() | st.text(alphabet="jaen-*;q=01., \t"), st.sampled_from(Locale))
@settings(max_examples=150)
def test_any_garbage_gets_a_page(header, default):
    assert preferred(header, default) in Locale


weights = st.integers(1, 1000).map(lambda thousandths: f"{thousandths / 1000:.3f}")


@given(weights, weights, st.sampled_from(Locale))
@settings(max_examples=60)
def test_the_heavier_one_wins_wherever_it_stands(ja, en, default):
    if float(ja) == float(en):
        return
    heavier = JA if float(ja) > float(en) else EN
    assert preferred(f"ja;q={ja}, en;q={en}", default) is heavier
    assert preferred(f"fr, en-GB;q={en}, ja-JP;q={ja}", default) is heavier
