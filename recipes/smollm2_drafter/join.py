"""Put files of rollouts together: python join.py OUTPUT.parquet INPUT.parquet [INPUT.parquet ...]."""

import sys

from t3d.trajectory import read_trajectories, write_trajectories

output, *inputs = sys.argv[1:]
write_trajectories(output, [record for name in inputs for record in read_trajectories(name)])
