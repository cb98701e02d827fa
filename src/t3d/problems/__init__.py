"""Questions: where they come from and how they are put to a model."""
