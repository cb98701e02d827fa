"""Work that runs on more than one machine."""
