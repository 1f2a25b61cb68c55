"""Rewards from preferences and from diffusion models."""
