pilotflow_pids= pilotflow_ended= pilotflow_code=0
trap 'pilotflow_ended=1; kill -TERM $pilotflow_pids 2>/dev/null || :' TERM
for pilotflow_node in 0 1 2; do
  PILOTFLOW_NODE_INDEX=$pilotflow_node 'python3' -m pilotflow.runtime.manager --name 'it'"'"'s $HOME' &
  pilotflow_pids="$pilotflow_pids $!"
done
[ -z "$pilotflow_ended" ] || kill -TERM $pilotflow_pids 2>/dev/null || :
for pilotflow_pid in $pilotflow_pids; do
  while :; do
    pilotflow_rc=0
    wait "$pilotflow_pid" || pilotflow_rc=$?
    if [ "$pilotflow_rc" -le 128 ] || ! kill -0 "$pilotflow_pid" 2>/dev/null; then break; fi
  done
  if [ "$pilotflow_code" -eq 0 ]; then pilotflow_code=$pilotflow_rc; fi
done
(exit "$pilotflow_code")
