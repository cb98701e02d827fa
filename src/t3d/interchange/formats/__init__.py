"""Trajectories in other projects' formats: pure functions from and to records, and their files.

``registry`` reads and writes whole files; docs/data.md says what each format holds and loses.
"""
