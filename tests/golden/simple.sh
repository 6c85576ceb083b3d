PILOTFLOW_NODE_INDEX=0 'python3' -m pilotflow.runtime.manager --name 'it'"'"'s $HOME'
