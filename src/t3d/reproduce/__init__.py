"""The paper's Tables 1-7: its printed numbers, the same cells on our suites, and both side by side."""
