import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.torch import load_file, save_file

from diffdecide.data.normalize import Normalizer

ROWS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 20), st.integers(1, 4)),
    elements=st.floats(-1e3, 1e3, allow_nan=False, width=32),
)


@settings(max_examples=60, deadline=None)
@given(data=ROWS, mode=st.sampled_from(["standard", "minmax", "identity"]))
def test_denormalize_inverts_normalize(data, mode):
    normalizer = Normalizer.fit(data, mode=mode)
    size = 1 + np.abs(data).max()
    np.testing.assert_allclose(normalizer.denormalize(normalizer.normalize(data)), data, atol=1e-4 * size)


def test_standard_and_minmax_reach_their_ranges():
    data = np.random.default_rng(0).normal(3.0, [0.5, 20.0], (1000, 2))
    standard = Normalizer.fit(data).normalize(data)
    np.testing.assert_allclose(standard.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(standard.std(0), 1, atol=1e-5)
    ranged = Normalizer.fit(data, mode="minmax").normalize(data)
    np.testing.assert_allclose([ranged.min(0), ranged.max(0)], [[-1, -1], [1, 1]], atol=1e-5)


@pytest.mark.parametrize("mode", ["standard", "minmax"])
@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
def test_a_constant_dimension_becomes_zero_and_is_not_amplified(mode, value):
    normalizer = Normalizer.fit(np.full((10, 1), value), mode=mode)
    np.testing.assert_allclose(normalizer.normalize(np.full((2, 1), value)), 0, atol=0.2)
    assert abs(normalizer.normalize(np.array([value + 1.0]))[0]) <= 1.2


def test_clipping_holds_outliers_for_numpy_and_torch():
    normalizer = Normalizer.fit(np.array([[-1.0], [1.0]]), clip=3.0)
    assert normalizer.normalize(np.array([100.0]))[0] == 3.0
    assert normalizer.normalize(torch.tensor([-100.0])).item() == -3.0


def test_numpy_and_torch_agree_and_gradients_flow():
    normalizer = Normalizer.fit(np.random.default_rng(0).normal(size=(30, 3)))
    value = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    result = normalizer(value)
    np.testing.assert_allclose(result.detach().numpy(), normalizer.normalize(value.detach().numpy()), atol=1e-6)
    result.sum().backward()
    assert value.grad is not None


def test_it_travels_by_safetensors_and_by_json(tmp_path):
    data = np.random.default_rng(0).normal(2, 3, (30, 3))
    normalizer = Normalizer.fit(data, clip=4.0)
    save_file(normalizer.state_dict(), tmp_path / "n.safetensors")
    loaded = Normalizer(3)
    loaded.load_state_dict(load_file(tmp_path / "n.safetensors"))
    again = Normalizer.from_dict(json.loads(json.dumps(normalizer.to_dict())))
    for other in (loaded, again):
        assert other.clip == 4.0
        np.testing.assert_array_equal(other.normalize(data), normalizer.normalize(data))
    assert not list(normalizer.parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Normalizer(0), "dim: expected >= 1"),
        (lambda: Normalizer(1, clip=-1.0), "clip: expected > 0"),
        (lambda: Normalizer.fit(np.zeros((0, 2))), "at least one row"),
        (lambda: Normalizer.fit(np.array([[0.0, np.nan]])), "NaN or infinity in dimension 1"),
        (lambda: Normalizer.fit(np.zeros((2, 2)), mode="rank"), "mode: expected"),
        (lambda: Normalizer(3).normalize(np.zeros((2, 4))), r"expected \[\.\.\., 3\], got shape \(2, 4\)"),
        (lambda: Normalizer(3).denormalize(torch.zeros(2)), r"expected \[\.\.\., 3\]"),
        (lambda: Normalizer.from_dict({"offset": [0.0]}), "missing keys"),
        (lambda: Normalizer.from_dict({"offset": [0.0], "scale": [0.0]}), "scales > 0"),
        (lambda: Normalizer.from_dict({"offset": [0.0], "scale": [1.0, 1.0]}), "expected offset and scale"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
