#!/usr/bin/env bash
# The paper's road on a real language model, in stages; what is finished is skipped. See README.md beside this.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
RUNS="${T3D_RUNS:?set it to the folder for models and runs}"
DATA="${T3D_DATA:?set it to the folder that has gsm8k/train.jsonl.gz and gsm8k/test.jsonl}"
# What a smaller trial changes; README.md has the table.
SOURCE="${T3D_SOURCE:-$RUNS/smollm2}"
SFT_STEPS="${T3D_SFT_STEPS:-467}" SFT_BATCH="${T3D_SFT_BATCH:-16}" SFT_WARMUP="${T3D_SFT_WARMUP:-20}"
SOFT="${T3D_SOFT:-0}" SOLUTION_TOKENS="${T3D_SOLUTION_TOKENS:-0}"
GATE="${T3D_GATE:-0.8}" GATE_PROMPTS="${T3D_GATE_PROMPTS:-64}"
PROMPTS="${T3D_PROMPTS:-1000}" TOKENS="${T3D_TOKENS:-160}" TEST_PROMPTS="${T3D_TEST_PROMPTS:-128}"
STEPS="${T3D_STEPS:-200}" BATCH="${T3D_BATCH:-8}" WARMUP="${T3D_WARMUP:-20}" RATE="${T3D_RATE:-1e-4}"
STUDENTS="${T3D_STUDENTS:-naive_td redi dparallel t3d}"
read -ra T3D <<< "${T3D_COMMAND:-t3d}"
read -ra PYTHON <<< "${T3D_PYTHON:-python}"
if [ -z "${T3D_DTYPE:-}" ]; then
    T3D_DTYPE=float32 # of training: bfloat16 where the CPU multiplies in it, else it is slower
    if grep -qwE 'avx512_bf16|amx_bf16|bf16' /proc/cpuinfo 2>/dev/null; then T3D_DTYPE=bfloat16; fi
fi

say() { printf '\n== %s\n' "$*"; }
is_there() { # a stage is finished when its output has its name
    [ -e "$1" ] && echo "there already: $1"
}
mkdir -p "$RUNS"

say "1 the autoregressive model"
is_there "$SOURCE" || "${T3D[@]}" fetch smollm2 --output "$SOURCE"

say "2 as a block-diffusion model"
if ! is_there "$RUNS/blocks"; then
    gguf=("$SOURCE"/*.gguf) file=()
    if [ ! -e "$SOURCE/config.json" ] && [ -e "${gguf[0]}" ]; then file=(--gguf-file "$(basename "${gguf[0]}")"); fi
    "${T3D[@]}" convert "$SOURCE" "${file[@]}" --block-size 4 --output "$RUNS/blocks"
fi

say "3 problems and solutions that end in a box"
short=() # counted by the tokenizer that will read them
if [ "$SOLUTION_TOKENS" != 0 ]; then
    short=(--max-solution-tokens "$SOLUTION_TOKENS" --tokenizer "$RUNS/blocks")
fi
test_file="$DATA/gsm8k/test.jsonl"
[ -e "$test_file" ] || test_file="$test_file.gz"
is_there "$RUNS/train.jsonl" ||
    "${T3D[@]}" data prompts --source gsm8k_train --data "$DATA" "${short[@]}" --output "$RUNS/train.jsonl"
is_there "$RUNS/test.jsonl" ||
    "${T3D[@]}" data prompts --source gsm8k_train --data "$test_file" "${short[@]}" \
        --output "$RUNS/test.jsonl"
is_there "$RUNS/solutions.parquet" ||
    "${T3D[@]}" data solutions --prompts "$RUNS/train.jsonl" --model "$RUNS/blocks" --block-size 4 \
        --output "$RUNS/solutions.parquet"

say "4 a teacher: one epoch of the solutions ($T3D_DTYPE)"
soft=()
if [ "$SOFT" != 0 ]; then soft=(--soft-targets-from "$SOURCE" --override "soft_target_weight=$SOFT"); fi
is_there "$RUNS/sft/student" ||
    "${T3D[@]}" train --preset sft --model "$RUNS/blocks" --trajectories "$RUNS/solutions.parquet" \
        --block-size 4 --tokens-per-step 1 --num-optimizer-steps "$SFT_STEPS" --batch-size "$SFT_BATCH" \
        --learning-rate 5e-4 --warmup-steps "$SFT_WARMUP" --save-every 25 --dtype "$T3D_DTYPE" \
        "${soft[@]}" --output "$RUNS/sft"
teacher="$RUNS/sft/student"

say "5 the gate: its full steps end"
is_there "$RUNS/gate/results.json" ||
    "${T3D[@]}" eval --model "$teacher" --prompts "$RUNS/test.jsonl" --limit "$GATE_PROMPTS" --block-size 4 \
        --tokens-per-step 1 --temperature 0 --max-new-tokens "$TOKENS" --dtype float32 --output "$RUNS/gate"
"${PYTHON[@]}" "$here/gate.py" "$RUNS/gate/results.json" --at-least "$GATE"

say "6 rollouts at full steps"
is_there "$RUNS/rollout.parquet" ||
    "${T3D[@]}" rollout --model "$teacher" --prompts "$RUNS/train.jsonl" --limit "$PROMPTS" --block-size 4 \
        --steps-per-block 4 --temperature 0 --max-new-tokens "$TOKENS" --batch-size 32 --chunk-size 32 \
        --dtype float32 --output "$RUNS/rollout.parquet"

say "7 students at equal budget: $STUDENTS"
named=()
for preset in $STUDENTS; do
    is_there "$RUNS/$preset/student" ||
        "${T3D[@]}" train --preset "$preset" --model "$teacher" --trajectories "$RUNS/rollout.parquet" \
            --block-size 4 --num-optimizer-steps "$STEPS" --batch-size "$BATCH" --learning-rate "$RATE" \
            --warmup-steps "$WARMUP" --save-every 25 --dtype "$T3D_DTYPE" --output "$RUNS/$preset"
    named+=(--student "$preset=$RUNS/$preset/student")
done

say "8 few-step text beside the teacher's"
"${PYTHON[@]}" "$here/../../benchmarks/real_text.py" --teacher "$teacher" --judge "$SOURCE" \
    --prompts "$RUNS/test.jsonl" --limit "$TEST_PROMPTS" --max-new-tokens "$TOKENS" --block-size 4 \
    "${named[@]}" --json "$RUNS/real_text.json"
"${PYTHON[@]}" "$here/../../benchmarks/real_text_table.py" "$RUNS/real_text.json" > "$RUNS/real_text.md"
echo "tables and samples in $RUNS/real_text.md"
