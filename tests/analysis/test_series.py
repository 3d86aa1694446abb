"""A run's metrics on the page: all of them, thinned without losing what stands out."""

import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsw.analysis.page.series import Series, packed, read_series, thin


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=400), st.integers(4, 60))
def test_thinning_keeps_the_ends_and_every_stretchs_extremes(values, most):
    values = np.array(values)
    kept = thin(values, most)
    assert len(kept) <= max(most, 4) + 2
    assert list(kept) == sorted(set(kept))
    assert {0, len(values) - 1} <= set(kept)
    assert values[kept].min() == values.min()
    assert values[kept].max() == values.max()


def test_a_spike_of_one_row_among_a_million_stays():
    values = np.zeros(1_000_000)
    values[765_432], values[123_456] = 7.0, -3.0
    kept = thin(values, 200)
    assert {765_432, 123_456} <= set(kept)


def unpack(text, kind):
    return np.frombuffer(base64.b64decode(text), kind)


def test_what_is_packed_is_what_was_logged(tmp_path):
    rows = [{"step": 10 * n, "time": n / 2, "a/x": n**2, "b": -n} for n in range(1, 6)]
    rows[2].pop("b")
    rows[3]["a/x"] = None
    broken = [
        "",
        "{",
        "[]",
        '{"step": "x"}',
        '{"time": 1}',
        '{"step": 70, "a/x": true, "b": NaN, "c": 1e300}',
        "[" * 9999,
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*map(json.dumps, rows), *broken]))
    data = packed(read_series(tmp_path), 100)
    steps, seconds = unpack(data["steps"], "<f8"), unpack(data["seconds"], "<f4")
    told = {
        name: {steps[row]: value for row, value in zip(unpack(places, "<u2"), unpack(values, "<f4"), strict=True)}
        for name, (places, values) in data["metrics"].items()
    }
    assert told == {"a/x": {10: 1, 20: 4, 30: 9, 50: 25}, "b": {10: -1, 20: -2, 40: -4, 50: -5}}
    assert list(seconds) == [0.5, 1.0, 1.5, 2.0, 2.5]


@pytest.mark.parametrize("content", [None, "", "nonsense\n"])
def test_a_file_without_rows_has_no_curves(tmp_path, content):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    assert packed(read_series(tmp_path), 100)["metrics"] == {}
    assert packed(Series(), 4)["steps"] == ""
