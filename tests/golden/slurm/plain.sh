#!/bin/bash
#SBATCH --job-name=pilotflow:0001-abcd:cpu-0
#SBATCH --comment="pilotflow block cpu-0 of run 0001-abcd in /home/u/runs/0001"
#SBATCH --output=/home/u/runs/0001/blocks/cpu-0/stdout
#SBATCH --error=/home/u/runs/0001/blocks/cpu-0/stderr
#SBATCH --open-mode=append
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --no-requeue
#SBATCH --export=NONE
#SBATCH --exclusive
unset SLURM_EXPORT_ENV
# pilotflow block cpu-0: 1 node(s) from Slurm
# ---- managers
echo managers
