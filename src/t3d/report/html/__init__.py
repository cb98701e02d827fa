"""The page ``report.html`` of a run: read from its folder, written as one file that asks for nothing."""
