"""Trajectories in and out: other projects' formats, solutions, statistics, validation."""
