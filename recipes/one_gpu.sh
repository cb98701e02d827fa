#!/usr/bin/env bash
# Prompts, trajectories, an adapter and its evaluation by a recipe on one GPU. From the root of the repository:
#
#     recipes/one_gpu.sh recipes/sdar_4b_math_lora.yaml
#
# It has not run on a GPU. What the recipe takes is said first, and ends it where that does not fit. Killed, it goes on
# with the same command: what is finished is taken.
set -euo pipefail

RECIPE=$1
t3d plan "$RECIPE"
t3d data prompts --config "$RECIPE"
t3d rollout --config "$RECIPE"
t3d train --config "$RECIPE"
t3d eval --config "$RECIPE"
