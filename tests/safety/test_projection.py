"""Projections: against cvxpy, against closed forms, with gradients, and with nothing failing silently."""

import math

import numpy as np
import pytest
import torch

from safety.constraints import Ball, stack
from safety.projection import InfeasibleError, Status, project, project_soft
from safety.projection.check import FEASIBILITY_MARK, OBJECTIVE_MARK, compare
from safety.projection.problems import KINDS, random_problem

SOLVED, INFEASIBLE = int(Status.SOLVED), int(Status.INFEASIBLE)
FAST = ["auto", "daqp", "planar"]


def batch_of(kind, size, count, number, seed=0):
    generator = np.random.default_rng(seed)
    parts = [random_problem(generator, kind, size, count) for _ in range(number)]
    return tuple(np.stack([getattr(part, name) for part in parts]) for name in ("x", "A", "b"))


def test_all_methods_agree_with_cvxpy_and_flag_every_infeasible_problem():
    report = compare(270, seed=1)
    for method, row in report.items():
        assert row["wrong_status"] == {}, method
        assert row["over_mark"] == {}, method
        assert row["max_objective_gap"] <= OBJECTIVE_MARK
        assert row["max_violation_m"] <= FEASIBILITY_MARK
        assert row["infeasible_flagged"] == row["infeasible"] > 30


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("to", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_a_planar_batch_agrees_with_one_after_the_other(kind, to):
    x, A, b = (to(part) for part in batch_of(kind, 2, 10, 64))
    together, apart = project(x, A, b, method="planar"), project(x, A, b, method="daqp")
    assert (together.status == apart.status).all()
    expected = INFEASIBLE if kind in ("infeasible", "opposed", "impossible") else SOLVED
    assert (together.status == expected).all()
    np.testing.assert_allclose(np.asarray(together.x), np.asarray(apart.x), atol=1e-8)
    if expected == INFEASIBLE:
        assert np.isnan(np.asarray(together.x)).all()


@pytest.mark.parametrize("method", [*FAST, "cvxpy"])
def test_one_half_space_has_a_closed_form(method):
    answer = project(np.array([3.0, 1.0]), np.array([[2.0, 0.0]]), np.array([2.0]), method=method)
    np.testing.assert_allclose(answer.x, [1.0, 1.0], atol=1e-7)
    assert answer.status.shape == ()
    assert answer.status == SOLVED
    assert answer.active.tolist() == [True]
    assert answer.violation <= 1e-7


@pytest.mark.parametrize("method", [*FAST, "cvxpy"])
def test_weights_change_the_metric(method):
    weights = np.array([1.0, 4.0])
    answer = project(np.zeros(2), np.array([[1.0, 1.0]]), np.array([-1.0]), method=method, weights=weights)
    np.testing.assert_allclose(answer.x, [-0.8, -0.2], atol=1e-7)


@pytest.mark.parametrize("method", FAST)
def test_far_from_the_origin_the_precision_is_that_of_the_correction(method):
    shift = np.array([1e5, -3e4])
    A, b = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]]), np.array([0.0, 0.5, -0.5])
    answer = project(np.array([2.0, 1.0]) + shift, A, b + A @ shift, method=method)
    np.testing.assert_allclose(answer.x - shift, [0.25, -0.25], atol=1e-7)


@pytest.mark.parametrize("method", FAST)
@pytest.mark.parametrize("to", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_each_row_of_a_mixed_batch_has_its_own_status(method, to):
    x = to(np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 0.0]] * 4))
    A = to(np.array([[1.0, 0.0], [-1.0, 0.0]]))
    b = to(np.array([[1.0, 1.0], [1.0, 1.0], [1.0, -1.5]] * 4))
    answer = project(x, A, b, method=method)
    assert answer.status.tolist() == [SOLVED, SOLVED, INFEASIBLE] * 4
    np.testing.assert_allclose(np.asarray(answer.x)[:2], [[0.0, 0.0], [1.0, 0.0]], atol=1e-12)
    assert np.isnan(np.asarray(answer.x)[2::3]).all()
    assert answer.violation[2] == pytest.approx(1.0)
    with pytest.raises(InfeasibleError, match="4 of 12"):
        answer.require()


def test_tolerance_decides_what_counts_as_infeasible():
    A, b = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]), np.array([0.0, -1e-5, 0.0])
    for size in (2, 3):
        rows = np.pad(A, ((0, 0), (0, size - 2)))
        for number in (1, 64):
            x = np.ones((number, size))
            assert (project(x, rows, b).status == INFEASIBLE).all()
            assert (project(x, rows, b, tol=1e-4).status == SOLVED).all()


@pytest.mark.parametrize("method", FAST)
def test_no_rows_empty_batches_and_infinite_bounds(method):
    x = np.arange(6.0).reshape(3, 2)
    answer = project(x, np.zeros((0, 2)), np.zeros(0), method=method)
    np.testing.assert_array_equal(answer.x, x)
    assert answer.active.shape == (3, 0)
    assert project(np.zeros((0, 2)), np.ones((4, 2)), np.ones(4), method=method).x.shape == (0, 2)
    unbound = project(x, np.ones((2, 2)), np.full(2, np.inf), method=method)
    np.testing.assert_array_equal(unbound.x, x)


def test_batches_broadcast_and_dtypes_stay():
    x = np.random.default_rng(0).normal(size=(3, 1, 2)).astype(np.float32)
    A, b = np.array([[1.0, 0.0]]), np.zeros((4, 1))
    answer = project(x, A, b)
    assert answer.x.shape == (3, 4, 2)
    assert answer.x.dtype == np.float32
    assert answer.status.shape == (3, 4)
    tensor = project(torch.from_numpy(x), A, b)
    assert tensor.x.dtype == torch.float32
    np.testing.assert_allclose(tensor.x.numpy(), answer.x, atol=1e-6)
    assert project(np.array([2, 1]), A, np.zeros(1)).x.dtype == np.float64


def test_the_input_is_left_alone():
    x, A, b = batch_of("feasible", 2, 6, 20)
    copies = x.copy(), A.copy(), b.copy()
    for method in FAST:
        project(x, A, b, method=method).x[:] = 0
    for part, copy in zip((x, A, b), copies, strict=True):
        np.testing.assert_array_equal(part, copy)


@pytest.mark.parametrize(("size", "method"), [(2, "planar"), (2, "daqp"), (5, "daqp")])
def test_gradients_pass_gradcheck(size, method):
    x, A, b = (torch.from_numpy(part).requires_grad_(True) for part in batch_of("feasible", size, 6, 6, seed=3))
    weights = torch.linspace(0.5, 2.0, size, dtype=torch.float64, requires_grad=True)

    def solve(x, A, b, weights):
        return project(x, A, b, method=method, weights=weights).x

    answer = project(x, A, b, method=method)
    assert set(answer.active.sum(-1).tolist()) & {1, 2, 3}
    assert torch.autograd.gradcheck(solve, (x, A, b, weights), eps=1e-7, atol=1e-5)


def test_gradients_survive_infeasible_and_duplicate_neighbours():
    x = torch.tensor([[2.0, 1.0], [2.0, 1.0]], dtype=torch.float64, requires_grad=True)
    A = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, 1.0, 5.0], [1.0, 1.0, -2.0]], dtype=torch.float64)
    for method in FAST:
        answer = project(x, A, b, method=method)
        (gradient,) = torch.autograd.grad(answer.x[0].sum(), x)
        np.testing.assert_allclose(gradient.numpy(), [[0.0, 1.0], [0.0, 0.0]], atol=1e-10)


def test_a_constraint_object_projects_a_point_out_of_its_ball():
    rows, _ = stack([Ball((0.0, 0.0), 0.5), Ball((0.0, 0.6), 0.5)], np.array([0.4, 0.3]))
    answer = project(np.array([0.4, 0.3]), rows.A, rows.b)
    assert Ball((0.0, 0.0), 0.5).value(answer.x) >= -1e-9
    assert Ball((0.0, 0.6), 0.5).value(answer.x) >= -1e-9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": np.array([math.nan, 0.0])}, "x must be finite"),
        ({"x": np.array(0.0)}, "x must have shape"),
        ({"A": np.array([[math.inf, 0.0]])}, "A must be finite"),
        ({"A": np.ones((1, 3))}, "A must have shape"),
        ({"A": np.ones(2)}, "A must have shape"),
        ({"b": np.array([math.nan])}, "b must be finite"),
        ({"b": np.array([-math.inf])}, "b must be finite"),
        ({"b": np.ones(2)}, "b must have shape"),
        ({"x": np.ones((3, 2)), "b": np.ones((4, 1))}, "broadcast"),
        ({"weights": np.array([1.0, 0.0])}, "weights"),
        ({"weights": np.ones(3)}, "weights"),
        ({"method": "guess"}, "method"),
        ({"tol": 0.0}, "tol"),
        ({"x": np.ones(3), "A": np.ones((1, 3)), "method": "planar"}, "planar"),
    ],
)
@pytest.mark.parametrize("to", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
def test_bad_input_is_named(arguments, message, to):
    given = {"x": np.zeros(2), "A": np.ones((1, 2)), "b": np.ones(1), **arguments}
    given = {name: to(value) if isinstance(value, np.ndarray) else value for name, value in given.items()}
    with pytest.raises(ValueError, match=message):
        project(**given)


def test_cvxpy_refuses_to_pretend_a_gradient():
    with pytest.raises(ValueError, match="not differentiable"):
        project(torch.zeros(2, requires_grad=True), torch.ones(1, 2), torch.ones(1), method="cvxpy")


WALL = np.array([[1.0, 0.0]]), np.array([0.0])  # hard: x <= 0


@pytest.mark.parametrize("to", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_soft_rows_give_way_and_hard_ones_do_not(to):
    soft = np.array([[-1.0, 0.0], [0.0, 1.0]]), np.array([-0.5, 1.0])  # x >= 0.5 (in conflict), y <= 1
    x = np.array([[0.3, 2.0], [-1.0, 0.0]])
    answer = project_soft(to(x), to(WALL[0]), to(WALL[1]), to(soft[0]), to(soft[1]))
    np.testing.assert_allclose(np.asarray(answer.x), [[0.0, 1.0], [0.0, 0.0]], atol=1e-7)
    np.testing.assert_allclose(np.asarray(answer.slack), [[0.5, 0.0], [0.5, 0.0]], atol=1e-7)
    assert answer.relaxed.tolist() == [True, True]
    assert answer.status.tolist() == [SOLVED, SOLVED]


def test_soft_rows_that_fit_are_kept_whatever_the_penalty():
    soft = np.array([[-1.0, 0.0]]), np.array([0.5])  # x >= -0.5
    answer = project_soft(np.array([-9.0, 0.0]), *WALL, *soft, penalty=1e-6)
    np.testing.assert_allclose(answer.x, [-0.5, 0.0], atol=1e-9)
    assert answer.slack == pytest.approx(0.0, abs=1e-9)
    assert not answer.relaxed


def test_hard_rows_in_conflict_are_infeasible_even_with_slack():
    hard = np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([0.0, -1.0])
    answer = project_soft(np.zeros(2), *hard, np.array([[0.0, 1.0]]), np.array([-1.0]))
    assert answer.status == INFEASIBLE
    assert np.isnan(answer.x).all()
    assert np.isnan(answer.slack).all()
    assert not answer.relaxed


def test_random_soft_conflicts_take_the_least_slack_and_respect_the_hard_rows():
    from scipy.optimize import linprog

    generator = np.random.default_rng(5)
    x, A, b = batch_of("feasible", 2, 5, 30)
    C, d = generator.normal(size=(30, 3, 2)), generator.normal(size=(30, 3)) - 1.0
    answer = project_soft(x, A, b, C, d)
    assert (answer.status == SOLVED).all()
    assert answer.violation.max() <= 1e-7
    assert answer.relaxed.sum() >= 5
    for k in range(30):
        relaxed = np.block([[A[k], np.zeros((5, 3))], [C[k], -np.eye(3)]])
        least = linprog(
            [0, 0, 1, 1, 1],
            A_ub=relaxed,
            b_ub=np.concatenate([b[k], d[k]]),
            bounds=[(None, None)] * 2 + [(0, None)] * 3,
        )
        room = (np.square(answer.x[k] - x[k]).sum() + np.square(answer.slack[k]).sum() + 100.0) / 2e4
        assert answer.slack[k].sum() <= least.fun + room


def test_soft_projection_is_differentiable_and_takes_no_rows():
    x = torch.tensor([[0.3, 2.0], [-2.0, 0.4]], dtype=torch.float64, requires_grad=True)
    hard = tuple(torch.from_numpy(part) for part in WALL)
    soft = torch.tensor([[-1.0, 0.0]], dtype=torch.float64), torch.tensor([-0.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: project_soft(x, *hard, *soft).x, (x,), atol=1e-5)
    none = project_soft(x.detach().numpy(), np.zeros((0, 2)), np.zeros(0), np.zeros((0, 2)), np.zeros(0))
    np.testing.assert_array_equal(none.x, x.detach().numpy())
    with pytest.raises(ValueError, match="penalty"):
        project_soft(np.zeros(2), *WALL, *WALL, penalty=-1.0)
    with pytest.raises(ValueError, match="A_soft"):
        project_soft(np.zeros(2), *WALL, np.ones((1, 3)), np.ones(1))
