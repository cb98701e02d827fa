#!/usr/bin/env bash
# Roll out by a recipe with one process for each GPU of a machine, each with a part of the prompts, and put the parts
# together. From the root of the repository:
#
#     recipes/rollout_node.sh recipes/sdar_4b_math.yaml runs/sdar_4b_math/prompts.jsonl runs/sdar_4b_math/rollout.parquet
#
# It has not run on a GPU. Killed, it goes on where it was with the same command. T3D_GPUS: how many, 8 unless told
# otherwise.
set -euo pipefail

RECIPE=$1 PROMPTS=$2 OUTPUT=$3
GPUS=${T3D_GPUS:-8}
HERE=$(dirname "$0")
PARTS=$OUTPUT.parts
mkdir -p "$PARTS"
split --number "l/$GPUS" --numeric-suffixes --suffix-length 2 --additional-suffix .jsonl "$PROMPTS" "$PARTS/prompts"

processes=()
for ((gpu = 0; gpu < GPUS; gpu++)); do
    part=$(printf '%02d' "$gpu")
    CUDA_VISIBLE_DEVICES=$gpu t3d rollout --config "$RECIPE" \
        --prompts "$PARTS/prompts$part.jsonl" --output "$PARTS/rollout$part.parquet" &
    processes+=($!)
done
for process in "${processes[@]}"; do wait "$process"; done
python "$HERE/smollm2_drafter/join.py" "$OUTPUT" "$PARTS"/rollout*.parquet
