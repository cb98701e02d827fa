"""SDAR models on transformers: the classes, the head, loading, placement and export.

Importing it registers the SDAR classes with transformers' Auto classes.
"""

import t3d.models.sdar  # noqa: F401 - registers
