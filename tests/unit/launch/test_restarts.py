"""Roles that die repeatedly are given up; roles that die rarely are not."""

from mora_launch.config.restarts import RestartBudget, RestartSettings


def test_a_budget_is_used_up_and_grows_back_with_time() -> None:
    now_s = 0.0
    budget = RestartBudget(RestartSettings(max_num=2, within_s=100.0), now_s=lambda: now_s)
    assert budget.take()
    now_s = 50.0
    assert budget.take()
    assert str(budget) == "2 of 2 restarts in 100 s"
    assert not budget.take()
    now_s = 100.0  # the first is forgotten
    assert budget.take()
    assert not budget.take()


def test_without_a_budget_the_first_death_is_the_last() -> None:
    assert not RestartBudget(RestartSettings(max_num=0)).take()
