"""One remembered object and how objects of its kind behave."""

from __future__ import annotations

from dataclasses import dataclass

from safety.hypotheses import Origin

EXACT_SIGMA = 1e-3  # m, what an exact detection is trusted to: tilt of the body and odometry, not the lidar


@dataclass(frozen=True)
class MapConfig:
    """How one kind of object behaves and how fast confidence in it decays.

    Attributes:
        moves: "no" (hazards, pillars, buttons, zones), "pushed" (vases, boxes) or "always" (gremlins).
        single: exactly one object of this kind exists; it may jump (a goal that was reached).
        turn_rate: rad/s at which the velocity of what always moves turns.
        gate: m, how far from its predicted position an exact detection may be and still be the same object.
        drift: m per square root of a step, growth of sigma while unconfirmed.
        patience: steps in a row that readings must contradict an object before it is removed.
        separation: m, two objects of the kind are never closer.
        resolve_sigma: m, hypotheses narrower than this become an object.
        top_speed: m/s, kinds that always move are no faster (gremlins go round at 0.35 m/s).
        forget_sigma: m, a moving object less certain than this is dropped.
    """

    moves: str = "no"
    single: bool = False
    turn_rate: float = 0.0
    gate: float = 0.05
    drift: float = 1e-4
    patience: int = 2
    separation: float = 0.2
    resolve_sigma: float = 0.004
    top_speed: float = 0.8
    forget_sigma: float = 0.6

    def __post_init__(self) -> None:
        if self.moves not in ("no", "pushed", "always"):
            raise ValueError(f"MapConfig: expected moves to be 'no', 'pushed' or 'always', got {self.moves=}")
        for name in ("gate", "drift", "separation", "resolve_sigma", "top_speed", "forget_sigma"):
            if not getattr(self, name) > 0:
                raise ValueError(f"MapConfig: expected {name} > 0, got {getattr(self, name)}")
        if self.patience < 1:
            raise ValueError(f"MapConfig: expected patience >= 1, got {self.patience=}")


class Track:
    """One object: position and velocity (odometric frame), covariance, and how often it was seen or contradicted."""

    __slots__ = ("against", "exact", "hits", "origin", "pxx", "pxy", "pyy", "seen", "var", "vx", "vy", "x", "y")

    def __init__(self, x: float, y: float, cov: tuple[float, float, float], origin: Origin | None = None) -> None:
        self.origin = origin  # set while the object is only supposed
        self.x, self.y = x, y
        self.pxx, self.pxy, self.pyy = cov
        self.var = self.pxx + self.pyy  # m^2
        self.vx = self.vy = 0.0
        self.hits, self.against, self.seen, self.exact = 1, 0, True, 0

    def grow(self, var: float) -> None:
        """Add `var` [m^2] of uncertainty, equally in all directions."""
        self.pxx += 0.5 * var
        self.pyy += 0.5 * var
        self.var += var

    def pin(self) -> None:
        """The position is known as well as it can be."""
        self.pxx = self.pyy = 0.5 * EXACT_SIGMA**2
        self.pxy = 0.0
        self.var = EXACT_SIGMA**2

    def absorb(self, residual: float, hx: float, hy: float, noise_var: float, gate: float) -> bool:
        """Kalman update by one scalar reading with gradient (hx, hy); False where it lies outside `gate` sigma."""
        gx = self.pxx * hx + self.pxy * hy
        gy = self.pxy * hx + self.pyy * hy
        total = hx * gx + hy * gy + noise_var
        if residual * residual > gate * gate * total:
            return False
        kx, ky = gx / total, gy / total
        self.x += kx * residual
        self.y += ky * residual
        self.pxx -= kx * gx
        self.pxy -= kx * gy
        self.pyy -= ky * gy
        self.var = self.pxx + self.pyy
        return True
