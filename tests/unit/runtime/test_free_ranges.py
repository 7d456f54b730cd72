"""Free bytes never overlap, never get lost, and merge again."""

from hypothesis import given
from hypothesis import strategies as st
from mora_runtime.device.free_ranges import FreeRanges

SIZE = 64


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 20)), max_size=80))
def test_taken_ranges_are_disjoint_and_returned_ranges_merge_again(steps: list[tuple[bool, int]]) -> None:
    ranges = FreeRanges(SIZE)
    taken: list[tuple[int, int]] = []
    for is_take, number in steps:
        if is_take:
            start = ranges.take(number)
            used = {byte for first, nbytes in taken for byte in range(first, first + nbytes)}
            if start is None:
                runs = "".join("x" if byte in used else "." for byte in range(SIZE)).split("x")
                assert max(map(len, runs)) < number, "there was a range that long"
            else:
                assert not used & set(range(start, start + number))
                assert 0 <= start <= SIZE - number
                taken.append((start, number))
        elif taken:
            ranges.give(*taken.pop(number % len(taken)))
    for start, nbytes in taken:
        ranges.give(start, nbytes)
    assert ranges.take(SIZE) == 0


def test_the_tightest_range_is_taken() -> None:
    ranges = FreeRanges(100)
    places = [ranges.take(nbytes) for nbytes in (30, 10, 20, 10, 30)]
    assert places == [0, 30, 40, 60, 70]
    ranges.give(0, 30)
    ranges.give(40, 20)
    assert ranges.take(15) == 40
    assert ranges.take(30) == 0
    assert ranges.take(6) is None
    assert ranges.take(5) == 55
