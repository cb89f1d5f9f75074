"""The cluster that the other tests stand on."""


def test_a_job_runs_on_four_nodes(cluster):
    nodes = cluster.run("srun", "--nodes=4", "printenv", "SLURMD_NODENAME").split()
    assert sorted(nodes) == ["n1", "n2", "n3", "n4"]


def test_each_node_hands_out_the_gpus_that_were_asked_for(cluster):
    assert cluster.run("srun", "--nodes=2", "--gpus-per-node=2", "printenv", "CUDA_VISIBLE_DEVICES") == "0,1\n0,1"
