"""The page of ``t3d view``: what is shown (Python) and how (plain JavaScript and CSS beside it)."""
