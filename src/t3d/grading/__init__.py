"""Verdicts on answers: math, code, arithmetic programs."""
