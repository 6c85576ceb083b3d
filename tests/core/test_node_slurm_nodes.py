"""The nodes of a job, as scontrol or the job's variables tell them."""

from __future__ import annotations

from pilotflow.node.slurm_nodes import SlurmNode, nodes_of_environment, read_job_nodes

GIB = 1 << 30
DETAILS = """\
JobId=2 JobName=a.sh
   NumNodes=4 NumCPUs=14 NumTasks=4 CPUs/Task=N/A ReqB:S:C:T=0:0:*:*
   TRES=cpu=14,mem=7000M,node=4,billing=14
   Socks/Node=* NtasksPerN:B:S:C=1:0:*:* CoreSpec=*
   JOB_GRES=gpu:2
     Nodes=node[1-2] CPU_IDs=0-3 Mem=2048 GRES=
     Nodes=node3 CPU_IDs=0-1,6 Mem=1024 GRES=gpu:2(IDX:0-1)
     Nodes=fat-7 CPU_IDs=5 Mem=0 GRES=shard:4(IDX:0),gpu:a100:1(IDX:3),craynetwork:1(CNT:1)
   MinCPUsNode=1 MinMemoryNode=0 MinTmpDiskNode=0
"""


def test_each_node_has_what_the_job_has_of_it() -> None:
    assert read_job_nodes(DETAILS) == (
        SlurmNode("node1", 4, 2 * GIB),
        SlurmNode("node2", 4, 2 * GIB),
        SlurmNode("node3", 3, GIB, 2),
        SlurmNode("fat-7", 1, 0, 1),
    )


def test_an_answer_without_nodes_has_none() -> None:
    assert read_job_nodes("slurm_load_jobs error: Invalid job id specified") == ()


def test_without_scontrol_the_variables_must_do() -> None:
    environ = {
        "SLURM_JOB_NODELIST": "node[1-2],fat-7",
        "SLURM_JOB_CPUS_PER_NODE": "4(x2),1",
        "SLURM_MEM_PER_CPU": "512",
        "SLURM_GPUS_ON_NODE": "2",
    }
    assert nodes_of_environment(environ) == (
        SlurmNode("node1", 4, 2 * GIB, 2),
        SlurmNode("node2", 4, 2 * GIB, 2),
        SlurmNode("fat-7", 1, GIB // 2, 2),
    )
    assert nodes_of_environment({}) == ()
    assert nodes_of_environment({"SLURM_JOB_NODELIST": "node[1-2]"}) == ()
