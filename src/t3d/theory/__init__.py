"""Section 4 of the paper in exact numbers: enumerable models, all their trajectories, its statements."""
