"""The long sweep: two workloads, in float64, for their whole training."""

import pytest

from instep import parity, workloads


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["digits-cnn", "digits-mlp"])
def test_in_step_to_the_end_of_training(name):
    workload = workloads.get(name)
    report = parity.run(workload.make_pair(), workload.total_steps, precisions=[])
    assert report.in_step, report
    noise = {row.leaf.name for row in report.not_judged()}
    assert noise <= {"conv1.bias", "conv2.bias"}
    for row in report.rows:
        assert row.judged == row.measured or row.leaf.name in noise, row
