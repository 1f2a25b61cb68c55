"""Constraints: values, half-spaces and closest approaches, in numpy and torch."""

import math

import numpy as np
import pytest
import torch

from safety.constraints import Ball, Barrier, Box, HalfSpace, Inside, Speed, clearance, stack

CONSTRAINTS = [
    Ball((0.3, -0.2), 0.4, margin=0.05),
    Ball((0.3, -0.2), 0.4, velocity=(0.5, -1.0)),
    Inside((0.1, 0.1), 1.0, margin=0.1),
    Box((-1.0, -math.inf), (1.2, 0.8), margin=0.1),
    HalfSpace((1.0, 2.0), 0.7, margin=0.1),
    Speed(1.0, margin=0.1),
    Speed(1.0, facets=8),
    Barrier(lambda x: 1.0 - x[..., 0].square() - x[..., 1], margin=0.1),
]
EXACT = [c for c in CONSTRAINTS if isinstance(c, (Ball, Box, HalfSpace)) or getattr(c, "facets", 0)]
TANGENT = [c for c in CONSTRAINTS if not getattr(c, "facets", 0)]  # a polygon lies inside its disc on purpose


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=lambda c: type(c).__name__)
def test_numpy_and_torch_agree_in_every_batch_shape(constraint, generator):
    for shape in ((), (3,), (2, 5)):
        x, y = generator.normal(size=(2, *shape, 6))
        tensors = torch.from_numpy(x), torch.from_numpy(y)
        value = constraint.value(x, 0.3)
        assert value.shape == shape
        np.testing.assert_allclose(constraint.value(tensors[0], 0.3).numpy(), value, atol=1e-12)
        rows, same = constraint.linearise(x, 0.3), constraint.linearise(tensors[0], 0.3)
        assert rows.A.shape[:-2] == shape
        assert rows.A.shape[-1] == 6
        assert rows.b.shape == rows.A.shape[:-1]
        np.testing.assert_allclose(same.A.numpy(), rows.A, atol=1e-12)
        np.testing.assert_allclose(same.b.numpy(), rows.b, atol=1e-12)
        between = constraint.segment_value(x, y, 0.0, 0.3)
        assert between.shape == shape
        np.testing.assert_allclose(constraint.segment_value(*tensors, 0.0, 0.3).numpy(), between, atol=1e-12)


@pytest.mark.parametrize("constraint", EXACT, ids=lambda c: type(c).__name__)
def test_every_point_of_the_half_spaces_is_allowed(constraint, generator):
    x, z = generator.normal(size=(2, 4000, 6))
    rows = constraint.linearise(x, 0.4)
    inside = ((rows.A @ z[..., None])[..., 0] <= rows.b).all(-1)
    assert 100 < inside.sum() < 3900
    assert (constraint.value(z, 0.4)[inside] >= -1e-12).all()


@pytest.mark.parametrize("constraint", TANGENT, ids=lambda c: type(c).__name__)
def test_rows_agree_with_the_value_to_first_order(constraint, generator):
    x = generator.normal(size=(500, 6))
    near = x + 1e-5 * generator.normal(size=x.shape)
    rows = constraint.linearise(x)
    room = (rows.b - (rows.A @ near[..., None])[..., 0]).min(-1)
    np.testing.assert_allclose(room, constraint.value(near), atol=1e-7)


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=lambda c: type(c).__name__)
def test_segment_value_is_the_smallest_value_on_the_way(constraint, generator):
    start, end = generator.normal(size=(2, 60, 6))
    parts = np.linspace(0.0, 1.0, 2001)[:, None, None]
    dense = constraint.value(start + parts * (end - start), 0.4 * parts[..., 0]).min(0)
    tolerance = 0.3 if isinstance(constraint, Barrier) else 5e-3  # a barrier is sampled, not solved
    between = constraint.segment_value(start, end, 0.0, 0.4)
    assert (between <= dense + (tolerance if isinstance(constraint, Barrier) else 1e-12)).all()
    np.testing.assert_allclose(between, dense, atol=tolerance)


def test_a_ball_between_two_waypoints_is_seen():
    ball = Ball((0.0, 0.0), 0.2)
    left, right = np.array([-1.0, 0.1]), np.array([1.0, 0.1])
    assert ball.value(left) > 0 < ball.value(right)
    assert ball.segment_value(left, right) == pytest.approx(-0.1)


def test_a_moving_ball_is_met_where_it_will_be():
    ball = Ball((0.0, 0.0), 0.2, velocity=(1.0, 0.0))
    here = np.zeros((3, 2))
    np.testing.assert_allclose(ball.value(here, np.array([0.0, 0.5, 1.0])), [-0.2, 0.3, 0.8])
    assert ball.segment_value(np.zeros(2), np.array([1.0, 0.0]), 0.0, 1.0) == pytest.approx(-0.2)  # driving along
    crossing = Ball((0.0, -1.0), 0.2, velocity=(0.0, 1.0)).segment_value(
        np.array([-1.0, 0.0]), np.array([1.0, 0.0]), 0.0, 2.0
    )
    assert crossing == pytest.approx(-0.2)


def test_gradients_are_finite_at_the_centre_of_a_ball():
    ball = Ball((0.5, 0.5), 0.2)
    x = torch.tensor([0.5, 0.5], dtype=torch.float64, requires_grad=True)
    ball.value(x).backward()
    assert torch.isfinite(x.grad).all()
    rows = ball.linearise(np.array([0.5, 0.5]))
    np.testing.assert_allclose(rows.A, [[-1.0, 0.0]])
    np.testing.assert_allclose(rows.b, [-0.7])


def test_values_are_differentiable(generator):
    x = torch.from_numpy(generator.normal(size=(4, 6))).requires_grad_(True)
    for constraint in CONSTRAINTS:
        assert torch.autograd.gradcheck(constraint.value, (x,))


def test_a_barrier_of_a_distance_is_a_ball(generator):
    ball = Ball((0.3, -0.2), 0.4)
    center = torch.tensor([0.3, -0.2], dtype=torch.float64)
    barrier = Barrier(lambda x: (x[..., :2] - center).norm(dim=-1) - 0.4)
    x = generator.normal(size=(20, 2))
    np.testing.assert_allclose(barrier.value(x), ball.value(x), atol=1e-12)
    for one, other in zip(barrier.linearise(x), ball.linearise(x), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_stack_keeps_order_and_ranks(generator):
    x = generator.normal(size=(3, 6))
    constraints = [Ball((0, 0), 0.2), Box((-1, -1), (1, 1), rank="soft"), Speed(1.0)]
    rows, hard = stack(constraints, x)
    assert rows.A.shape == (3, 6, 6)
    assert rows.b.shape == (3, 6)
    assert hard.tolist() == [True, False, False, False, False, True]
    with pytest.raises(ValueError, match="at least one"):
        stack([], x)


def test_clearance_agrees_with_each_ball_and_with_dense_sampling(generator):
    paths = np.cumsum(generator.normal(size=(6, 9, 2)) * 0.3, 1)
    centers, radii = generator.normal(size=(5, 2)), generator.uniform(0.1, 0.4, size=5)
    result = clearance(paths, centers, radii)
    assert result.shape == (6, 9)
    each = clearance(paths, centers, radii, per_ball=True)
    np.testing.assert_allclose(each.min(-1), result)
    for index, (center, radius) in enumerate(zip(centers, radii, strict=True)):
        ball = Ball(center, radius)
        np.testing.assert_allclose(each[:, 0, index], ball.value(paths[:, 0]))
        np.testing.assert_allclose(each[:, 1:, index], ball.segment_value(paths[:, :-1], paths[:, 1:]), atol=1e-12)
    tensor = torch.from_numpy(paths).requires_grad_(True)
    same = clearance(tensor, centers, radii)
    np.testing.assert_allclose(same.detach().numpy(), result, atol=1e-12)
    same.sum().backward()
    assert torch.isfinite(tensor.grad).all()


def test_clearance_of_moving_discs_is_that_of_moving_balls(generator):
    paths = np.cumsum(generator.normal(size=(4, 7, 2)) * 0.3, 1)
    start, velocity = generator.normal(size=(2, 3, 2))
    times = 0.1 * np.arange(7)
    centers = start + times[:, None, None] * velocity
    result = clearance(paths, centers, np.full(3, 0.2), per_ball=True)
    for index in range(3):
        ball = Ball(start[index], 0.2, velocity=velocity[index])
        expected = ball.segment_value(paths[:, :-1], paths[:, 1:], times[:-1], times[1:])
        np.testing.assert_allclose(result[:, 1:, index], expected, atol=1e-12)


def test_clearance_without_discs_is_infinite():
    assert (clearance(np.zeros((2, 3, 2)), np.zeros((0, 2)), np.zeros(0)) == np.inf).all()
    assert (clearance(torch.zeros(2, 3, 2), torch.zeros(0, 2), torch.zeros(0)) == torch.inf).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ball((0, 0), -0.1), "Ball.radius"),
        (lambda: Ball((0, 0), math.inf), "Ball.radius"),
        (lambda: Ball((0, math.nan), 0.1), "Ball.center"),
        (lambda: Ball([[0, 0]], 0.1), "Ball.center"),
        (lambda: Ball((0, 0), 0.1, margin=-1), "Ball.margin"),
        (lambda: Ball((0, 0), 0.1, velocity=(1,)), "Ball.velocity"),
        (lambda: Ball((0, 0), 0.1, rank="firm"), "Ball.rank"),
        (lambda: Ball((0, 0), 0.1, dims=(0, 0)), "Ball.dims"),
        (lambda: Inside((0, 0), 0.1, margin=0.1), "Inside.margin"),
        (lambda: Box((0, 0), (1, -1)), "low"),
        (lambda: Box((0, 0), (1,)), "Box.high"),
        (lambda: Box((-math.inf,), (math.inf,)), "finite face"),
        (lambda: HalfSpace((0, 0), 1.0), "HalfSpace.normal"),
        (lambda: HalfSpace((1, 0), math.nan), "HalfSpace.offset"),
        (lambda: Speed(0.0), "Speed.limit"),
        (lambda: Speed(1.0, facets=2), "Speed.facets"),
        (lambda: Barrier(3), "Barrier.fn"),
        (lambda: Ball((0, 0), 0.1).value(np.zeros(1)), "features"),
        (lambda: Speed(1.0).value(np.zeros((4, 2))), "features"),
        (lambda: Ball((0, 0), 0.1).value(np.array([0.0, math.nan])), "NaN"),
        (lambda: Ball((0, 0), 0.1).linearise(torch.tensor([0.0, math.inf])), "infinite"),
        (lambda: Barrier(lambda x: x).value(np.zeros((3, 2))), "Barrier.fn must return"),
        (lambda: Barrier(lambda x: x[..., 0] / 0 * 0).value(np.zeros((3, 2))), "NaN"),
        (lambda: Barrier(lambda x: x.detach()[..., 0]).linearise(np.zeros((3, 2))), "differentiable"),
        (lambda: clearance(np.zeros((3, 2)), np.zeros((1, 2)), np.zeros(1)), "paths"),
        (lambda: clearance(np.zeros((3, 4, 2)), np.zeros((5, 1, 2)), np.zeros(1)), "centers"),
        (lambda: clearance(np.zeros((3, 4, 2)), np.zeros((2, 2)), np.zeros(1)), "radii"),
        (lambda: clearance(np.zeros((3, 4, 2)), np.zeros((1, 2)), -np.ones(1)), "radii"),
        (lambda: clearance(np.full((3, 4, 2), np.nan), np.zeros((1, 2)), np.ones(1)), "paths"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
