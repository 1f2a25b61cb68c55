"""A diffusion model of a Gaussian, whose best denoiser is known in closed form."""

import torch
from torch import nn

from diffdecide.schedules import ScheduleConfig, alphas_cumprod


class GaussianPlanner(nn.Module):
    """Plans are N(mean, std² I); with `context` [B, 1] the mean is the context's."""

    def __init__(self, mean=0.0, std=1.0, *, conditional=False):
        super().__init__()
        self.schedule = ScheduleConfig(prediction="sample")
        self.mean = nn.Parameter(torch.as_tensor(mean, dtype=torch.float32))
        self.std, self.conditional = std, conditional
        kept = alphas_cumprod(self.schedule)
        self.register_buffer("alpha", kept.sqrt().float())
        self.register_buffer("sigma", (1 - kept).sqrt().float())

    def denoise(self, x, t, context):
        mean = context[:, 0][:, None, None] if self.conditional else self.mean
        alpha, sigma = self.alpha[t][:, None, None], self.sigma[t][:, None, None]
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        return mean + gain * (x - alpha * mean)

    def save_pretrained(self, folder):
        torch.save(self.state_dict(), folder / "gaussian.pt")
