pilotflow_pids= pilotflow_signals=0 pilotflow_code=0
trap 'pilotflow_signals=$((pilotflow_signals + 1)); kill -USR1 $pilotflow_pids 2>/dev/null || :' TERM
for pilotflow_node in 0 1 2; do
  export PILOTFLOW_NODE_INDEX=$pilotflow_node
  (unset SLURM_CORE_SPEC SLURM_CPUS_PER_GPU SLURM_CPUS_PER_TASK SLURM_CPU_BIND SLURM_DISTRIBUTION SLURM_DIST_PLANESIZE SLURM_EXACT SLURM_EXCLUSIVE SLURM_GPUS SLURM_GPUS_PER_NODE SLURM_GPUS_PER_SOCKET SLURM_GPUS_PER_TASK SLURM_GPU_BIND SLURM_GRES SLURM_HINT SLURM_HOSTFILE SLURM_IMMEDIATE SLURM_LABELIO SLURM_MEM_BIND SLURM_NTASKS_PER_CORE SLURM_NTASKS_PER_GPU SLURM_NTASKS_PER_SOCKET SLURM_SPREAD_JOB SLURM_STDERRMODE SLURM_STDOUTMODE SLURM_STEP_GRES SLURM_THREAD_SPEC SLURM_THREADS_PER_CORE SLURM_TIMELIMIT SLURM_TRES_PER_TASK SLURM_USE_MIN_NODES SRUN_CPUS_PER_TASK; exec srun --job-name=pilotflow-managers --nodes=1 --ntasks=1 --ntasks-per-node=1 --overlap --mem=0 --cpu-bind=none --mpi=none --export=ALL --input=none --kill-on-bad-exit=0 --wait=0 --relative="$pilotflow_node" bash -p -c 'export PILOTFLOW_OF_JOB_SLURM_JOB_NODELIST=$SLURM_JOB_NODELIST PILOTFLOW_OF_JOB_SLURM_NODELIST=$SLURM_NODELIST PILOTFLOW_OF_JOB_SLURM_JOB_NUM_NODES=$SLURM_JOB_NUM_NODES PILOTFLOW_OF_JOB_SLURM_NNODES=$SLURM_NNODES PILOTFLOW_OF_JOB_SLURM_TASKS_PER_NODE=$SLURM_TASKS_PER_NODE PILOTFLOW_OF_JOB_SLURM_JOB_CPUS_PER_NODE=$SLURM_JOB_CPUS_PER_NODE
export SLURM_JOB_NODELIST=$SLURMD_NODENAME SLURM_NODELIST=$SLURMD_NODENAME SLURM_JOB_NUM_NODES=1 SLURM_NNODES=1 SLURM_TASKS_PER_NODE=$SLURM_CPUS_ON_NODE SLURM_JOB_CPUS_PER_NODE=$SLURM_CPUS_ON_NODE
unset SLURM_STEP_ID SLURM_STEPID SLURM_JOB_GPUS
pilotflow_told=0 pilotflow_seen= pilotflow_pid=
trap '"'"'pilotflow_told=$((pilotflow_told + 1)); [ -z "$pilotflow_pid" ] || kill -TERM "$pilotflow_pid" 2>/dev/null'"'"' USR1 TERM
(trap '"'"''"'"' USR1; trap - INT QUIT TERM; exec '"'"'python3'"'"' -m pilotflow.runtime.manager --name '"'"'it'"'"'"'"'"'"'"'"'s $HOME'"'"') &
pilotflow_pid=$!
[ "$pilotflow_told" -eq 0 ] || kill -TERM "$pilotflow_pid" 2>/dev/null
while [ "$pilotflow_seen" != "$pilotflow_told" ]; do
  pilotflow_seen=$pilotflow_told pilotflow_code=0
  wait "$pilotflow_pid" 2>/dev/null || pilotflow_code=$?
done
exit "$pilotflow_code"
') &
  pilotflow_pids="$pilotflow_pids $!"
done
unset PILOTFLOW_NODE_INDEX
[ "$pilotflow_signals" -eq 0 ] || kill -USR1 $pilotflow_pids 2>/dev/null || :
for pilotflow_pid in $pilotflow_pids; do
  pilotflow_seen=
  while [ "$pilotflow_seen" != "$pilotflow_signals" ]; do
    pilotflow_seen=$pilotflow_signals pilotflow_rc=0
    wait "$pilotflow_pid" || pilotflow_rc=$?
  done
  if [ "$pilotflow_code" -eq 0 ]; then pilotflow_code=$pilotflow_rc; fi
done
(exit "$pilotflow_code")
