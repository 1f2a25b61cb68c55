"""Are the probabilities honest? Temperature scaling, expected calibration error, Brier score."""

from __future__ import annotations

import numpy as np


def log_loss(delta: np.ndarray, label: np.ndarray, *, temperature: float = 1.0) -> float:
    """Mean cross-entropy (nats) of soft labels [N] under sigma(delta / temperature)."""
    delta, label = np.asarray(delta, np.float64) / temperature, np.asarray(label, np.float64)
    return float(np.mean(np.logaddexp(0, -delta) * label + np.logaddexp(0, delta) * (1 - label)))


def fit_temperature(delta: np.ndarray, label: np.ndarray) -> float:
    """The T > 0 that minimises `log_loss` (Guo et al. 2017, "On Calibration of Modern Neural Networks", sec. 4.2).

    Found in [1e-3, 1e3]; the loss is convex in 1 / T.
    """
    from scipy.optimize import minimize_scalar

    delta = np.asarray(delta, np.float64)
    if delta.size == 0 or delta.shape != np.shape(label):
        raise ValueError(f"fit_temperature: expected equal shapes with entries, got {delta.shape}, {np.shape(label)}")
    found = minimize_scalar(
        lambda log: log_loss(delta, label, temperature=float(np.exp(log))), bounds=(-6.9, 6.9), method="bounded"
    )
    return float(np.exp(found.x))


def calibration_error(probability: np.ndarray, label: np.ndarray, *, bins: int = 15) -> float:
    """Expected calibration error (Naeini et al. 2015) of P(first) [N] on labels [N], bins of equal width.

    Pairs are turned so that the prediction is at least 1/2: which segment came first must not matter.
    """
    probability, label = np.asarray(probability, np.float64), np.asarray(label, np.float64)
    if probability.size == 0 or probability.shape != label.shape:
        raise ValueError(f"calibration_error: expected equal shapes, got {probability.shape} and {label.shape}")
    turned = probability < 0.5
    confidence = np.where(turned, 1 - probability, probability)
    right = np.where(turned, 1 - label, label)
    index = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
    counts = np.bincount(index, minlength=bins)
    gaps = np.abs(np.bincount(index, confidence, bins) - np.bincount(index, right, bins))
    return float(gaps[counts > 0].sum() / len(label))


def brier(probability: np.ndarray, label: np.ndarray) -> float:
    """Mean squared error of probabilities [N] (Brier 1950)."""
    return float(np.mean(np.square(np.asarray(probability, np.float64) - np.asarray(label, np.float64))))
