from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost

from tace_al.dispatch.retry import RetryPolicy


def losses_until_condemned(error: Exception) -> int:
    policy, spent, losses = RetryPolicy(), 0.0, 0
    while not policy.condemned(spent):
        cost = policy.cost(error)
        assert cost is not None
        spent, losses = spent + cost, losses + 1
    return losses


def test_third_dead_worker_condemns_a_task_lost_blocks_count_a_third() -> None:
    assert losses_until_condemned(WorkerLost(0, "node")) == 3
    assert losses_until_condemned(ManagerLost(b"id", "node")) == 9


def test_errors_of_the_task_have_no_price() -> None:
    assert RetryPolicy().cost(ValueError("x")) is None


def test_waits_double_and_are_bounded() -> None:
    policy = RetryPolicy(first_wait_s=1.0, longest_wait_s=10.0)
    assert [policy.wait_s(n) for n in range(1, 7)] == [1, 2, 4, 8, 10, 10]
