#!/bin/bash
#SBATCH --job-name=pilotflow:cpu-0
#SBATCH --comment="pilotflow block cpu-0"
#SBATCH --output="/a b/50%%/\"x\"/o'ut"
#SBATCH --error=/home/u/runs/0001/blocks/cpu-0/stderr
#SBATCH --open-mode=append
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --no-requeue
#SBATCH --export=NONE
#SBATCH --mem=0M
unset SLURM_EXPORT_ENV
# pilotflow block cpu-0: 1 node(s) from Slurm
# ---- managers
echo managers
