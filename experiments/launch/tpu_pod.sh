#!/usr/bin/env bash
# One training over all chips of a TPU slice: the same command on every host of it.
#   NAME=my-v5e ZONE=us-west4-a bash tpu_pod.sh --task npz:/mnt/data/task.npz --bank /mnt/shared/bank
#
# JAX finds the other hosts by itself. /mnt/shared has to be a folder that all hosts see (Filestore, GCS by gcsfuse).
set -euo pipefail
: "${NAME:?the name of the TPU slice}" "${ZONE:?its zone}"

on_all_hosts() { gcloud compute tpus tpu-vm ssh "$NAME" --zone "$ZONE" --worker=all --command "$1"; }

on_all_hosts "pip install --quiet 'xbm_jax[tpu]'"
on_all_hosts "xbm adapt --distributed $(printf '%q ' "$@")"
