"""Prompts, and the ``[clean | noisy]`` training sequence."""
