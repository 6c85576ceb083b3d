pilotflow_pids= pilotflow_signals=0 pilotflow_code=0
trap 'pilotflow_signals=$((pilotflow_signals + 1)); kill -USR1 $pilotflow_pids 2>/dev/null || :' TERM
pilotflow_ends=$(mktemp)
(unset SLURM_CORE_SPEC SLURM_CPUS_PER_GPU SLURM_CPUS_PER_TASK SLURM_CPU_BIND SLURM_DISTRIBUTION SLURM_DIST_PLANESIZE SLURM_EXACT SLURM_EXCLUSIVE SLURM_GPUS SLURM_GPUS_PER_NODE SLURM_GPUS_PER_SOCKET SLURM_GPUS_PER_TASK SLURM_GPU_BIND SLURM_GRES SLURM_HINT SLURM_HOSTFILE SLURM_IMMEDIATE SLURM_LABELIO SLURM_MEM_BIND SLURM_NTASKS_PER_CORE SLURM_NTASKS_PER_GPU SLURM_NTASKS_PER_SOCKET SLURM_SPREAD_JOB SLURM_STDERRMODE SLURM_STDOUTMODE SLURM_STEP_GRES SLURM_THREAD_SPEC SLURM_THREADS_PER_CORE SLURM_TIMELIMIT SLURM_TRES_PER_TASK SLURM_USE_MIN_NODES SRUN_CPUS_PER_TASK; exec mpirun --mca plm_slurm_args '--overlap --mem=0 --export=ALL' --mca ras_slurm_use_entire_allocation 1 --allow-run-as-root --oversubscribe --bind-to none --map-by node -np 3 bash -p -c 'export PILOTFLOW_NODE_INDEX=${OMPI_COMM_WORLD_RANK:-${PMIX_RANK:-${PMI_RANK:-${SLURM_PROCID:-}}}}
unset "${!OMPI_COMM_WORLD_@}" "${!OMPI_MCA_ess@}" "${!OMPI_MCA_orte_@}" "${!OMPI_MCA_pmix@}" "${!OMPI_WORLD_@}" "${!PMIX_DSTORE_@}" "${!PMIX_SERVER_@}" "${!PRTE_MCA_ess@}" "${!PRTE_MCA_prte_@}" "${!HYDI_@}" OMPI_APP_CTX_NUM_PROCS OMPI_ARGV OMPI_COMMAND OMPI_FILE_LOCATION OMPI_FIRST_RANKS OMPI_MCA_initial_wdir OMPI_MCA_mpi_oversubscribe OMPI_MCA_num_procs OMPI_NUM_APP_CTX OMPI_TOOL_NAME OMPI_UNIVERSE_SIZE PMIX_BFROP_BUFFER_TYPE PMIX_GDS_MODULE PMIX_HOSTNAME PMIX_ID PMIX_NAMESPACE PMIX_PARAM_FILE_PASSED PMIX_RANK PMIX_SECURITY_MODE PMIX_SYSTEM_TMPDIR PMIX_VERSION PRTE_LAUNCHED PRTE_SHARED_FS PMI_FD PMI_RANK PMI_SIZE MPI_LOCALNRANKS MPI_LOCALRANKID
pilotflow_told=0 pilotflow_seen= pilotflow_pid=
trap '"'"'pilotflow_told=$((pilotflow_told + 1)); [ -z "$pilotflow_pid" ] || kill -TERM "$pilotflow_pid" 2>/dev/null'"'"' USR1 TERM
(trap '"'"''"'"' USR1; trap - INT QUIT TERM; exec '"'"'python3'"'"' -m pilotflow.runtime.manager --name '"'"'it'"'"'"'"'"'"'"'"'s $HOME'"'"') >&2 &
pilotflow_pid=$!
[ "$pilotflow_told" -eq 0 ] || kill -TERM "$pilotflow_pid" 2>/dev/null
while [ "$pilotflow_seen" != "$pilotflow_told" ]; do
  pilotflow_seen=$pilotflow_told pilotflow_code=0
  wait "$pilotflow_pid" 2>/dev/null || pilotflow_code=$?
done
echo "pilotflow-end $PILOTFLOW_NODE_INDEX $pilotflow_code"
') </dev/null >"$pilotflow_ends" &
pilotflow_pids=$!
[ "$pilotflow_signals" -eq 0 ] || kill -USR1 $pilotflow_pids 2>/dev/null || :
for pilotflow_pid in $pilotflow_pids; do
  pilotflow_seen=
  while [ "$pilotflow_seen" != "$pilotflow_signals" ]; do
    pilotflow_seen=$pilotflow_signals pilotflow_rc=0
    wait "$pilotflow_pid" || pilotflow_rc=$?
  done
  if [ "$pilotflow_code" -eq 0 ]; then pilotflow_code=$pilotflow_rc; fi
done
pilotflow_left=3 pilotflow_first=3 pilotflow_failed=0
while read -r pilotflow_word pilotflow_node pilotflow_rc; do
  [ "$pilotflow_word" = pilotflow-end ] || continue
  pilotflow_left=$((pilotflow_left - 1))
  if [ "$pilotflow_rc" -ne 0 ] && [ "$pilotflow_node" -lt "$pilotflow_first" ]; then
    pilotflow_first=$pilotflow_node pilotflow_failed=$pilotflow_rc
  fi
done <"$pilotflow_ends"
rm -f "$pilotflow_ends"
if [ "$pilotflow_failed" -ne 0 ]; then
  pilotflow_code=$pilotflow_failed
elif [ "$pilotflow_left" -le 0 ]; then
  pilotflow_code=0
elif [ "$pilotflow_code" -eq 0 ]; then
  pilotflow_code=1
fi
(exit "$pilotflow_code")
