"""`benchmarks/painter.py`: two runs at equal wall-clock, on logs that are made up."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.painter import Course, at_equal_time, over


def course(kids: dict[int, float], seconds: dict[int, float], *, pace: bool = False) -> Course:
    """A run from KIDs and seconds by pictures seen."""
    log: list[dict[str, Any]] = [{"images": n, "seconds": s} for n, s in seconds.items()]
    return Course.of("it", log, [{"images": n, "kid": kid} for n, kid in kids.items()], pace=pace)


@pytest.fixture
def steady() -> Course:
    """10 pictures a second; its second snapshot lies between two lines of the log."""
    return course({100: 9.0, 250: 4.0, 400: 6.0}, {100: 10.0, 200: 20.0, 300: 30.0, 400: 40.0})


@pytest.fixture
def disturbed() -> Course:
    """10 pictures a second, but for a pause of 100 s."""
    return course({100: 8.0, 200: 2.0}, {50: 5.0, 100: 10.0, 150: 115.0, 200: 120.0})


def test_at_equal_time_each_has_its_best_until_then(steady: Course, disturbed: Course) -> None:
    assert [one.seconds for one in steady.snapshots] == [10.0, 25.0, 40.0]
    found = [
        (seconds, one.kid, two.kid if two else None)
        for seconds, one, two in at_equal_time(steady, disturbed)
    ]
    assert found == [(10.0, 9.0, 8.0), (25.0, 4.0, 8.0), (40.0, 4.0, 8.0)]
    turned = [(one.kid, two and two.kid) for _, one, two in at_equal_time(disturbed, steady)]
    assert turned == [(8.0, 9.0), (2.0, 4.0)]


def test_before_its_first_snapshot_the_other_has_nothing(steady: Course) -> None:
    late = course({100: 1.0}, {100: 30.0})
    assert [two for _, _, two in at_equal_time(steady, late)][:2] == [None, None]


def test_by_the_median_pace_a_pause_does_not_count(disturbed: Course) -> None:
    assert disturbed.pace == 10.0
    assert disturbed.seen / disturbed.seconds == pytest.approx(200 / 120)
    even = course({100: 8.0, 200: 2.0}, {50: 5.0, 100: 10.0, 150: 115.0, 200: 120.0}, pace=True)
    assert [one.seconds for one in even.snapshots] == [10.0, 20.0]


def test_a_run_reaches_a_kid_with_its_first_snapshot_as_good(steady: Course) -> None:
    first = steady.reaches(6.0)
    assert first is not None
    assert first.seconds == 25.0
    assert steady.reaches(3.9) is None


def test_a_kid_of_a_perfect_generator_has_no_ratio() -> None:
    assert over(1.0, 2.0) == "0.500×"
    assert over(1.0, -0.01) == over(-0.01, 1.0) == "no ratio"
