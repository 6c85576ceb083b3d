pilotflow_pids= pilotflow_signals=0 pilotflow_code=0
trap 'pilotflow_signals=$((pilotflow_signals + 1)); kill -TERM $pilotflow_pids 2>/dev/null || :' TERM
for pilotflow_node in 0; do
  PILOTFLOW_NODE_INDEX=$pilotflow_node 'bash' -c 'apptainer exec "$HOME/tools.sif" "$@"' bash python3 -m pilotflow.runtime.manager --name 'it'"'"'s $HOME' &
  pilotflow_pids="$pilotflow_pids $!"
done
[ "$pilotflow_signals" -eq 0 ] || kill -TERM $pilotflow_pids 2>/dev/null || :
for pilotflow_pid in $pilotflow_pids; do
  pilotflow_seen=
  while [ "$pilotflow_seen" != "$pilotflow_signals" ]; do
    pilotflow_seen=$pilotflow_signals pilotflow_rc=0
    wait "$pilotflow_pid" || pilotflow_rc=$?
  done
  if [ "$pilotflow_code" -eq 0 ]; then pilotflow_code=$pilotflow_rc; fi
done
(exit "$pilotflow_code")
