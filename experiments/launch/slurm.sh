#!/usr/bin/env bash
# One training over all GPUs of some SLURM nodes: sbatch slurm.sh --task npz:/data/task.npz --bank /shared/bank
#
# One process a GPU, and every process sees all GPUs of its node: JAX picks the one of its SLURM_LOCALID. With
# --gpus-per-task SLURM shows each process a single GPU as number 0, and JAX then finds none for the others.
# A job that is preempted gets SIGTERM, saves, and carries on when it is queued again.
#SBATCH --job-name=xbm
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

# Compiled programs outlive the job; the folder has to be one that all nodes see.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/xbm_jax/jax}"

exec srun --kill-on-bad-exit=1 xbm adapt --distributed "$@"
