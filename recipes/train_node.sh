#!/usr/bin/env bash
# Train by a recipe on all GPUs of one machine, the student and its reference sharded by FSDP2. From the root of the
# repository:
#
#     recipes/train_node.sh recipes/sdar_4b_math.yaml [further flags of t3d train]
#
# It has not run on a GPU. Killed, it goes on with the same command. T3D_GPUS: how many, 8 unless told otherwise; the
# recipe's batch_size has to be a multiple of its gradient_accumulation_steps times that.
set -euo pipefail

RECIPE=$1; shift
exec t3d train --config "$RECIPE" --num-processes "${T3D_GPUS:-8}" --accelerate-config fsdp2 "$@"
