"""Who sees whom: masks, packed training rows, cached extends."""
