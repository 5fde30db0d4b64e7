"""Which ball comes next."""

from __future__ import annotations

import math

import pytest

from verifier.radius.ladder import FIRST_TRY, GROWTH, PATIENCE, SMALLEST_STEP, Failed, Ladder

TOLERANCE = 1e-3


def test_the_goal_is_tried_first():
    assert Ladder(0.1, (), None).next(0.15, TOLERANCE, 100.0) == (0.15, FIRST_TRY)


def test_easy_balls_halve_what_is_left():
    ladder = Ladder(0.1, ((0.1, 0.01),), Failed(0.15, 2.0, False))
    radius, seconds = ladder.next(0.16, TOLERANCE, 100.0)
    assert 0.1 < radius < 0.15
    assert seconds == FIRST_TRY
    near = Ladder(0.1499, ((0.1499, 0.01),), Failed(0.15, 2.0, False))
    assert near.next(0.16, TOLERANCE, 100.0) == (0.15, 25.0)


def test_times_are_extrapolated_exponentially():
    ladder = Ladder(0.102, ((0.101, 1.0), (0.102, 4.0)), None)
    assert ladder.seconds(0.102) == pytest.approx(4.0)
    assert ladder.seconds(0.103) == pytest.approx(16.0)
    assert ladder.seconds(0.5) is not None  # no overflow


def test_balls_that_took_as_long_say_nothing_about_the_rate():
    ladder = Ladder(0.1021, ((0.101, 1.0), (0.102, 4.0), (0.1021, 4.0)), None)
    assert ladder.seconds(0.1032) == pytest.approx(16.0)


def test_a_ball_given_up_is_expected_to_take_longer():
    without = Ladder(0.102, ((0.101, 3.0), (0.102, 4.0)), None).seconds(0.103)
    failed = Ladder(0.102, ((0.101, 3.0), (0.102, 4.0)), Failed(0.103, 10.0, False)).seconds(0.103)
    assert without is not None
    assert failed == pytest.approx(40.0)
    assert failed > without


def test_the_ladder_goes_up_by_a_factor():
    ladder = Ladder(0.102, ((0.101, 1.0), (0.102, 4.0)), None)
    radius, seconds = ladder.next(0.2, TOLERANCE, 1000.0)
    assert ladder.seconds(radius) == pytest.approx(GROWTH * 4.0, rel=1e-3)
    assert seconds == pytest.approx(PATIENCE * GROWTH * 4.0, rel=1e-3)
    # Within reach is the goal itself.
    assert ladder.next(0.1025, TOLERANCE, 1000.0)[0] == 0.1025


def test_a_goal_within_reach_is_taken_past_a_smaller_ball_that_was_given_up():
    held, begun = ((0.101, 4.0), (0.102, 13.0)), Failed(0.1025, 5.0, False)
    ladder = Ladder(0.102, held, begun)
    radius, seconds = ladder.next(0.1027, TOLERANCE, 70.0)
    assert radius == 0.1027
    assert seconds == pytest.approx(PATIENCE * ladder.seconds(0.1027))
    # Out of reach it is not, for want of time or because it is expected to take too much longer than the last one.
    assert ladder.next(0.1027, TOLERANCE, 10.0)[0] <= 0.1025
    assert ladder.next(0.1050, TOLERANCE, 1000.0)[0] <= 0.1025


def test_a_step_that_spares_less_than_half_is_left_out():
    ladder = Ladder(0.102, ((0.101, 1.0), (0.102, 4.0)), None)
    assert ladder.seconds(0.1032) == pytest.approx(
        4.0 * 4.0**1.2
    )  # more than GROWTH times as long, less than twice that
    assert ladder.next(0.1032, TOLERANCE, 1000.0)[0] == 0.1032


def test_early_promises_are_not_trusted():
    held = ((0.101, 1.0), (0.102, 4.0))
    early, late = (Failed(0.105, spent, False, remaining=20.0, closed=0.6) for spent in (2.0, 30.0))
    assert Ladder(0.102, held, early).next(0.11, TOLERANCE, 100.0)[0] < 0.105
    assert Ladder(0.102, held, late).next(0.11, TOLERANCE, 100.0)[0] == 0.105


def test_a_ball_hardly_smaller_than_one_that_was_begun_is_not_begun():
    held = ((0.101, 1.0), (0.102, 4.0))
    for share in (0.0, 0.5, 0.9, 0.99):
        radius, _ = Ladder(0.102, held, Failed(0.1035, 90.0, False, closed=share)).next(0.11, TOLERANCE, 300.0)
        assert radius == 0.1035 or radius <= 0.1035 - SMALLEST_STEP * TOLERANCE


def test_the_last_seconds_go_to_the_goal():
    ladder = Ladder(0.102, ((0.101, 1.0), (0.102, 4.0)), Failed(0.105, 30.0, False))
    assert ladder.next(0.11, TOLERANCE, 1.0) == (0.105, 1.0)


def test_a_ball_that_will_end_in_time_is_gone_on_with():
    held = ((0.101, 1.0), (0.102, 4.0))
    begun = Failed(0.105, 30.0, False, remaining=20.0, closed=0.6)
    radius, seconds = Ladder(0.102, held, begun).next(0.11, TOLERANCE, 50.0)
    assert radius == 0.105
    assert FIRST_TRY <= seconds < 20.0  # to be judged anew before it is over
    assert Ladder(0.102, held, begun).next(0.11, TOLERANCE, 25.0)[0] < 0.105
    # A ball that is larger than it has to be is not.
    assert Ladder(0.102, held, begun).next(0.104, TOLERANCE, 50.0)[0] <= 0.104


def test_what_a_larger_ball_has_done_need_not_be_done_again():
    held = ((0.101, 1.0), (0.102, 4.0))
    whole, half = (Ladder(0.102, held, Failed(0.105, 100.0, False, 300.0, closed)) for closed in (0.0, 0.5))
    assert half.left(0.103) == pytest.approx(whole.left(0.103) / 2)
    assert half.next(0.11, TOLERANCE, 50.0)[0] > whole.next(0.11, TOLERANCE, 50.0)[0]


def test_a_stuck_ball_is_closed_in_on():
    stuck = Failed(0.105, 1.0, True)
    ladder = Ladder(0.102, ((0.101, 1.0), (0.102, 4.0)), stuck)
    assert ladder.next(0.11, TOLERANCE, 50.0)[0] == pytest.approx(0.1035)
    close = Ladder(0.105 - 1e-5, ((0.101, 1.0), (0.105 - 1e-5, 4.0)), stuck)
    assert close.next(0.11, TOLERANCE, 50.0)[0] == 0.105


@pytest.mark.parametrize("failed", [None, Failed(0.15, 5.0, False), Failed(0.15, 5.0, True)])
@pytest.mark.parametrize("times", [(0.01, 0.02), (1.0, 1.0), (5.0, 2.0), (0.0, 100.0)])
def test_the_next_ball_is_always_above_what_is_known(failed, times):
    for left in (0.5, 5.0, 500.0):
        ladder = Ladder(0.12, ((0.11, times[0]), (0.12, times[1])), failed)
        radius, seconds = ladder.next(0.14, TOLERANCE, left)
        assert 0.12 < radius <= 0.15
        assert 0 < seconds < math.inf
