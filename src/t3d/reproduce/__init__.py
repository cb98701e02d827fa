"""The demo and the paper's Tables 1-7 as recipes of the same kept stages, beside the printed numbers."""
