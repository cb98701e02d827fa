"""The model and the tasks for lm-evaluation-harness."""
