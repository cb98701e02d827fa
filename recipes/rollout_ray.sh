#!/usr/bin/env bash
# Roll out a recipe's prompts on the GPUs of several machines, which form a Ray cluster first:
#
#     ray start --head --port 6379                   # on the first machine
#     ray start --address FIRST_MACHINE:6379         # on every other one, with the same packages
#     T3D_WORKERS=16 recipes/rollout_ray.sh recipes/sdar_4b_math.yaml [further flags of t3d rollout]
#
# From the root of the repository, which all see under the same path, as they do the model, the prompts and the output;
# the output may be on an object store instead (--output s3://BUCKET/NAME.parquet). It has not run on several machines
# or on a GPU. T3D_WORKERS: how many models, one a GPU; 8 unless told otherwise. Killed, it goes on with the same command.
set -euo pipefail

RECIPE=$1; shift
exec t3d rollout --config "$RECIPE" --ray --address auto --num-workers "${T3D_WORKERS:-8}" "$@"
