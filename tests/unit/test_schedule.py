import pytest

from burnish.learner.schedule import make_schedule


def test_warm_up_rises_in_equal_steps_and_moves_from_the_first_update():
    factor = make_schedule("constant", 4, 100)
    assert [factor(i) for i in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_constant_without_warm_up_is_one_throughout():
    factor = make_schedule("constant", 0, 3)
    assert {factor(i) for i in range(10)} == {1.0}


def test_linear_falls_to_zero_just_after_the_plan():
    factor = make_schedule("linear", 2, 6)
    assert [factor(i) for i in range(8)] == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]


def test_cosine_is_half_way_down_in_the_middle():
    factor = make_schedule("cosine", 0, 4)
    assert [factor(i) for i in range(5)] == pytest.approx([1.0, 0.8535534, 0.5, 0.1464466, 0.0])


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
@pytest.mark.parametrize(("warmup", "planned"), [(0, 1), (1, 1), (5, 3), (3, 3), (2, 50)])
def test_no_planned_update_has_rate_zero_and_none_exceeds_one(name: str, warmup: int, planned: int):
    factor = make_schedule(name, warmup, planned)
    assert all(0.0 < factor(i) <= 1.0 for i in range(planned))
