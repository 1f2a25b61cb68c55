import numpy as np
import pytest
from data_samples import episode
from hypothesis import given, settings
from hypothesis import strategies as st

from diffdecide.data.returns import discounted_to_go, to_end, to_go


def slow(values, discount, horizon, rate):
    """The definition, term by term."""
    look = horizon if horizon is not None else 4000
    at = lambda k: values[k] if k < len(values) else rate  # noqa: E731
    return [sum(discount**k * at(t + k) for k in range(look)) for t in range(len(values))]


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=12),
    discount=st.sampled_from([0.3, 0.9, 1.0]),
    horizon=st.integers(1, 20),
    rate=st.floats(-2, 2, width=32),
)
def test_the_sum_over_a_horizon_is_the_definition(values, discount, horizon, rate):
    found = discounted_to_go(np.array(values), discount=discount, horizon=horizon, rate_after=rate)
    np.testing.assert_allclose(found, slow(values, discount, horizon, rate), rtol=1e-4, atol=1e-4)


def test_the_endless_sum_is_the_definition():
    values = [1.0, -2.0, 0.5]
    found = discounted_to_go(np.array(values), discount=0.95, rate_after=0.25)
    np.testing.assert_allclose(found, slow(values, 0.95, None, 0.25), rtol=1e-5)


def test_to_end_is_undiscounted():
    np.testing.assert_array_equal(to_end(np.array([1.0, 2.0, 3.0])), [6, 5, 3])


def test_a_time_out_goes_on_and_a_terminal_does_not():
    timed = to_go(episode(6, end="timeout"), discount=0.9, horizon=10)
    ended = to_go(episode(6, end="terminal"), discount=0.9, horizon=10)
    cut = to_go(episode(6, end="open"), discount=0.9, horizon=10)
    item = episode(6)
    mean = item.rewards.mean()
    assert ended.return_to_go[-1] == pytest.approx(item.rewards[-1])
    assert timed.return_to_go[-1] == pytest.approx(
        item.rewards[-1] + mean * sum(0.9**k for k in range(1, 10)), rel=1e-4
    )
    np.testing.assert_array_equal(cut.return_to_go, timed.return_to_go)
    np.testing.assert_array_equal(timed.cost_to_end, ended.cost_to_end)
    assert timed.cost_to_end[0] == item.total_cost


def test_a_steady_rate_gives_the_same_value_everywhere():
    values = np.full(50, 0.3)
    found = discounted_to_go(values, discount=0.99, rate_after=0.3)
    np.testing.assert_allclose(found, 30.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": np.zeros((2, 2)), "discount": 0.9}, r"values: expected \[T\]"),
        ({"values": np.zeros(0), "discount": 0.9}, "values: expected"),
        ({"values": np.zeros(2), "discount": 0.0}, "discount: expected in"),
        ({"values": np.zeros(2), "discount": 0.9, "horizon": 0}, "horizon: expected >= 1"),
        ({"values": np.zeros(2), "discount": 1.0, "rate_after": 1.0}, "the sum is infinite"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        discounted_to_go(**arguments)
