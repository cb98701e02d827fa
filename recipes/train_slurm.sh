#!/usr/bin/env bash
# Train by a recipe on two nodes of eight GPUs under Slurm, sharded by FSDP2. From the root of the repository, which
# both nodes see under the same path, as they do the output:
#
#     sbatch recipes/train_slurm.sh recipes/sdar_8b_math.yaml --gradient-accumulation-steps 16
#
# With twice the GPUs, half of the accumulation keeps the batch of 256. It has not run anywhere. Killed or preempted,
# it goes on from its last checkpoint when it is submitted again.
#SBATCH --job-name=t3d
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail

RECIPE=$1; shift
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export RECIPE HEAD FLAGS="$*"
# shellcheck disable=SC2016  # every node fills in its own rank
srun bash -c 'exec accelerate launch \
    --num_machines "$SLURM_NNODES" --machine_rank "$SLURM_NODEID" --num_processes $((8 * SLURM_NNODES)) \
    --main_process_ip "$HEAD" --main_process_port 29500 --mixed_precision bf16 \
    --use_fsdp --fsdp_version 2 --fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP \
    --fsdp_reshard_after_forward true --fsdp_state_dict_type FULL_STATE_DICT \
    --fsdp_cpu_ram_efficient_loading false \
    -m t3d train --config "$RECIPE" $FLAGS'
