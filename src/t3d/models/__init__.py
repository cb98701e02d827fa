"""SDAR and adopted models on transformers: the classes, the head, loading, converting, placement and export.

Importing it registers the classes with transformers' Auto classes.
"""

import t3d.models.adopted  # noqa: F401 - registers, SDAR's too
