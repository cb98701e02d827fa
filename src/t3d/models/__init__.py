"""SDAR models on transformers, their masks, loading and export.

Importing it registers the SDAR classes with transformers' Auto classes.
"""

import t3d.models.sdar  # noqa: F401 - registers
