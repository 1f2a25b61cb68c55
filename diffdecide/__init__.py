"""Diffusion planners under safety constraints."""
