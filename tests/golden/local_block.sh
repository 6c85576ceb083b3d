#!/bin/bash
# pilotflow block cpu-0: 1 node(s) on this machine
# ---- worker_init
module load gcc
export A=1
pilotflow_code=$?
if [ "$pilotflow_code" -ne 0 ]; then
  echo "pilotflow: worker_init of block cpu-0 failed with exit code $pilotflow_code" >&2
  exit "$pilotflow_code"
fi
# ---- managers
echo managers
