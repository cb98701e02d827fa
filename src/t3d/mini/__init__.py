"""The bundled teachers, how they are pretrained, and the exact posterior as a model (the oracle)."""
