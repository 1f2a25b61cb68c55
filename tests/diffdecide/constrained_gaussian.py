"""A diffusion model whose data distribution is a known Gaussian, for tests with closed-form answers."""

from diffdecide.constrained.steering import from_clean
from diffdecide.schedules import ScheduleConfig, alphas_cumprod

SPREAD = 0.5


class GaussianModel:
    """Exact denoiser of N(mean, SPREAD^2) in every dimension; the mean moves by `context` [B or 1, 1]."""

    def __init__(self, schedule: ScheduleConfig, mean=0.0):
        self.schedule, self.mean = schedule, mean
        self.kept = alphas_cumprod(schedule)

    def denoise(self, x, t, context=None):
        share = float(self.kept[int(t.reshape(-1)[0])])
        alpha, sigma = share**0.5, (1 - share) ** 0.5
        mean = self.mean if context is None else self.mean + context[:, :, None]
        gain = alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)
        clean = mean + gain * (x - alpha * mean)
        return from_clean(self.schedule.prediction, clean, x, alpha, sigma)
