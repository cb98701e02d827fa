"""Work that outlives its process: whole files, locks, plans, kept units, checkpoints, progress."""
