"""Memory and hours of a recipe, from the arithmetic of its model, before anything runs."""
