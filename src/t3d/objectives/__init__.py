"""Objectives: pure functions of log-probabilities. No model, no config object, no device."""
