"""Evaluation: task x decoding settings -> accuracy with its interval, and what it cost."""
