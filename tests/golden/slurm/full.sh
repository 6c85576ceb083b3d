#!/bin/bash
#SBATCH --job-name=pilotflow:0001-abcd:cpu-0
#SBATCH --comment="pilotflow block cpu-0 of run 0001-abcd in /home/u/runs/0001"
#SBATCH --output=/home/u/runs/0001/blocks/cpu-0/stdout
#SBATCH --error=/home/u/runs/0001/blocks/cpu-0/stderr
#SBATCH --open-mode=append
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --time=01:30:01
#SBATCH --requeue
#SBATCH --export=ALL
#SBATCH --partition=cpu
#SBATCH --account=proj
#SBATCH --qos=high
#SBATCH --constraint=[rack1|rack2]
#SBATCH --reservation=tuesday
#SBATCH --gres=tmp:10G
#SBATCH --gpus-per-node=a100:2
#SBATCH --cpus-per-task=8
#SBATCH --mem=1536M
#SBATCH --exclusive
#SBATCH --exclude=n1,n7
# ---- scheduler_options
#SBATCH --mail-type=END
#SBATCH --time=2:00:00
# pilotflow block cpu-0: 2 node(s) from Slurm
export A='b c'
# ---- worker_init
module load gcc
pilotflow_code=$?
if [ "$pilotflow_code" -ne 0 ]; then
  echo "pilotflow: worker_init of block cpu-0 failed with exit code $pilotflow_code" >&2
  exit "$pilotflow_code"
fi
# ---- managers
echo managers
