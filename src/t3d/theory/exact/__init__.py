"""Enumerable block-diffusion models: every state, every trajectory, every posterior, in float64."""
