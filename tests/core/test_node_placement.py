"""Concrete cores and GPUs of one node: who gets which, and that nothing is ever held twice."""

from __future__ import annotations

import timeit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotflow.core.placement import WHOLE, CoreBook, Layout, Place, Seat
from pilotflow.errors import InternalError


def node(domains: int = 2, physical: int = 4, threads: int = 1, gpus: int = 0) -> Layout:
    """Cores numbered as Linux does: first one thread of every physical core, then the second of each."""
    places = [Place(at // physical, at) for at in range(domains * physical)]
    return Layout(tuple(places * threads), tuple(gpu * domains // gpus for gpu in range(gpus)))


def take(book: CoreBook, cpus: float, gpus: float = 0) -> Seat:
    seat = book.take(round(cpus * WHOLE), round(gpus * WHOLE))
    assert seat is not None
    return seat


def domains_of(layout: Layout, seat: Seat) -> set[int]:
    return {layout.cores[core].numa for core in seat.cores}


def physicals_of(layout: Layout, seat: Seat) -> set[int]:
    return {layout.cores[core].physical for core in seat.cores}


def test_each_task_of_one_core_gets_another_core_until_there_is_none() -> None:
    book = CoreBook(Layout.flat(4))
    assert [take(book, 1).cores for _ in range(4)] == [(0,), (1,), (2,), (3,)]
    assert book.take(WHOLE) is None
    assert not book.fits(WHOLE)


def test_a_core_given_back_is_taken_again() -> None:
    book = CoreBook(Layout.flat(3))
    seats = [take(book, 1) for _ in range(3)]
    book.give_back(seats[1])
    assert take(book, 1).cores == (1,)


def test_a_task_of_several_cores_stays_in_one_domain_if_one_has_them() -> None:
    layout = node(domains=2, physical=4)
    book = CoreBook(layout)
    take(book, 1)
    assert domains_of(layout, take(book, 4)) == {1}
    assert domains_of(layout, take(book, 3)) == {0}


def test_partly_used_domains_are_filled_before_an_empty_one_is_touched() -> None:
    layout = node(domains=4, physical=4)
    book = CoreBook(layout)
    seats = [take(book, 1) for _ in range(4)] + [take(book, 2), take(book, 2)]
    assert [domains_of(layout, seat) for seat in seats] == [{0}] * 4 + [{1}] * 2


def test_the_fullest_domain_with_enough_cores_is_the_best_fit() -> None:
    layout = node(domains=3, physical=8)
    book = CoreBook(layout)
    take(book, 6)
    five_left = take(book, 8)
    book.give_back(five_left)
    take(book, 3)
    assert domains_of(layout, take(book, 2)) == {0}


def test_a_task_too_large_for_one_domain_spans_as_few_as_possible() -> None:
    layout = node(domains=4, physical=4)
    book = CoreBook(layout)
    for count in (2, 1):
        take(book, count)
    assert len(domains_of(layout, take(book, 8))) == 2


def test_what_is_left_over_of_a_task_that_spans_domains_goes_to_the_fullest_that_has_it() -> None:
    layout = node(domains=3, physical=4)
    book = CoreBook(layout)
    take(book, 3)
    assert domains_of(layout, take(book, 5)) == {0, 1}


def test_a_task_of_two_cores_gets_both_threads_of_a_physical_core() -> None:
    layout = node(domains=1, physical=4, threads=2)
    book = CoreBook(layout)
    for _ in range(4):
        seat = take(book, 2)
        assert len(physicals_of(layout, seat)) == 1
        assert len(seat.cores) == 2


def test_tasks_of_one_core_share_a_physical_core_only_when_no_other_is_idle() -> None:
    layout = node(domains=1, physical=4, threads=2)
    book = CoreBook(layout)
    first = [take(book, 1) for _ in range(4)]
    assert len(set().union(*(physicals_of(layout, seat) for seat in first))) == 4
    assert len([take(book, 1) for _ in range(4)]) == 4


def test_an_odd_number_of_cores_is_whole_physical_cores_and_one_thread() -> None:
    layout = node(domains=1, physical=4, threads=2)
    book = CoreBook(layout)
    assert len(physicals_of(layout, take(book, 3))) == 2
    assert len(physicals_of(layout, take(book, 5))) == 3


def test_physical_cores_may_have_different_numbers_of_threads() -> None:
    layout = Layout((Place(0, 0), Place(0, 0), Place(0, 1), Place(0, 2), Place(0, 3)))
    book = CoreBook(layout)
    assert take(book, 2).cores == (0, 1)
    assert take(book, 3).cores == (2, 3, 4)


def test_parts_of_cores_share_a_core_and_never_one_with_a_whole_core_task() -> None:
    book = CoreBook(Layout.flat(2))
    parts = [take(book, 0.25) for _ in range(4)]
    assert {seat.shared_core for seat in parts} == {0}
    assert take(book, 1).whole_cores == (1,)
    assert book.take(250) is None


def test_a_part_goes_to_the_fullest_shared_core_with_room() -> None:
    book = CoreBook(Layout.flat(3))
    small, large = take(book, 0.6), take(book, 0.7)
    assert small.shared_core != large.shared_core
    assert take(book, 0.3).shared_core == large.shared_core
    assert take(book, 0.3).shared_core == small.shared_core


def test_a_task_may_have_whole_cores_and_a_part_of_another() -> None:
    book = CoreBook(Layout.flat(4))
    seat = take(book, 2.5)
    assert len(seat.whole_cores) == 2
    assert seat.shared_core not in seat.whole_cores
    assert take(book, 0.5).shared_core == seat.shared_core
    assert len(seat.cores) == 3


def test_a_shared_core_is_whole_again_when_its_last_task_ends() -> None:
    book = CoreBook(Layout.flat(1))
    one, two = take(book, 0.5), take(book, 0.5)
    book.give_back(one)
    assert not book.fits(WHOLE)
    book.give_back(two)
    assert take(book, 1).cores == (0,)


def test_a_part_is_not_split_over_two_cores() -> None:
    book = CoreBook(Layout.flat(2))
    take(book, 0.6)
    take(book, 0.6)
    assert book.cpus_free_milli == 800
    assert book.take(600) is None


def test_a_task_without_cores_has_a_seat_without_cores() -> None:
    book = CoreBook(Layout.flat(1))
    take(book, 1)
    assert take(book, 0).cores == ()


def test_a_quota_limits_the_sum_although_cores_are_free() -> None:
    book = CoreBook(Layout(Layout.flat(4).cores, cpus_milli=1500))
    take(book, 1)
    assert not book.fits(WHOLE)
    assert take(book, 0.5).shared_core is not None
    assert not book.fits(1)


def test_gpus_near_the_cores_are_preferred() -> None:
    layout = node(domains=2, physical=4, gpus=4)
    book = CoreBook(layout)
    take(book, 1)
    first, second, third = (take(book, 1, 1) for _ in range(3))
    for seat in (first, second, third):
        assert {layout.gpus[gpu] for gpu in seat.gpus} == domains_of(layout, seat)


def test_a_task_with_gpus_takes_its_cores_where_gpus_are_free() -> None:
    layout = node(domains=2, physical=8, gpus=4)
    book = CoreBook(layout)
    assert domains_of(layout, take(book, 1, 2)) == {0}
    seat = take(book, 1, 2)
    assert domains_of(layout, seat) == {1}
    assert seat.gpus == (2, 3)


def test_far_gpus_are_better_than_none_and_stay_together() -> None:
    layout = Layout(tuple(Place(0, core) for core in range(4)), (1, 2, 2, None))
    assert take(CoreBook(layout), 1, 2).gpus == (1, 2)
    assert take(CoreBook(layout), 1, 4).gpus == (0, 1, 2, 3)


def test_parts_of_a_gpu_share_the_fullest_device_with_room() -> None:
    book = CoreBook(Layout.flat(8, gpus=2))
    assert [take(book, 0, 0.5).shared_gpu for _ in range(3)] == [0, 0, 1]
    assert take(book, 0, 0.25).shared_gpu == 1
    assert not book.fits(0, 500)


def test_a_part_of_a_gpu_is_never_beside_a_task_that_has_the_whole() -> None:
    book = CoreBook(Layout.flat(8, gpus=2))
    whole, part = take(book, 1, 1), take(book, 1, 0.1)
    assert not set(whole.gpus) & set(part.gpus)
    assert not book.fits(1000, 1000)


def test_one_and_a_half_gpus_are_a_whole_device_and_half_of_another() -> None:
    book = CoreBook(Layout.flat(8, gpus=2))
    seat = take(book, 1, 1.5)
    assert (len(seat.whole_gpus), len(seat.gpus)) == (1, 2)
    assert take(book, 1, 0.5).shared_gpu == seat.shared_gpu


def test_the_part_of_a_gpu_draws_its_cores_near() -> None:
    layout = node(domains=2, physical=4, gpus=2)
    book = CoreBook(layout)
    take(book, 2, 1)
    take(book, 1, 0.5)
    seat = take(book, 1, 0.5)
    assert (seat.shared_gpu, domains_of(layout, seat)) == (1, {1})


def test_more_than_the_node_has_is_refused() -> None:
    book = CoreBook(Layout.flat(2, gpus=1))
    assert book.take(3000) is None
    assert book.take(1000, 2000) is None
    assert book.take(1000, 1500) is None
    assert book.cpus_free_milli == 2000
    assert book.gpus_free_milli == 1000


def test_a_node_without_cores_or_gpus_refuses_everything() -> None:
    book = CoreBook(Layout(()))
    assert book.take(WHOLE) is None
    assert book.take(1) is None
    assert book.take(0, 1) is None


def test_a_seat_given_back_twice_is_a_bug_that_is_noticed() -> None:
    book = CoreBook(Layout.flat(4, gpus=2))
    for amounts in ((1, 0), (2, 0), (0.5, 0), (0, 1), (0, 0.5)):
        seat = take(book, *amounts)
        book.give_back(seat)
        with pytest.raises(InternalError):
            book.give_back(seat)


def test_a_core_given_back_while_it_is_shared_is_a_bug_that_is_noticed() -> None:
    book = CoreBook(Layout.flat(1))
    seat = take(book, 1)
    book.give_back(seat)
    take(book, 0.5)
    with pytest.raises(InternalError):
        book.give_back(seat)


def test_negative_amounts_are_refused_with_words() -> None:
    with pytest.raises(ValueError, match="cannot take -1"):
        CoreBook(Layout.flat(1)).take(-1)


LAYOUTS = st.one_of(
    st.builds(Layout.flat, st.integers(1, 9), st.integers(0, 4)),
    st.builds(node, st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 5)),
    st.builds(
        Layout,
        st.lists(st.builds(Place, st.integers(0, 2), st.integers(0, 4)), min_size=1, max_size=12).map(tuple),
        st.lists(st.one_of(st.none(), st.integers(0, 3)), max_size=4).map(tuple),
        st.one_of(st.none(), st.integers(1000, 9000)),
    ),
)
AMOUNTS = st.one_of(st.just(1000), st.integers(0, 5).map(lambda n: 1000 * n), st.integers(0, 3500))
GPU_AMOUNTS = st.one_of(st.just(0), st.sampled_from([250, 500, 1000, 2000]), st.integers(0, 3000))
STEPS = st.lists(st.one_of(st.tuples(AMOUNTS, GPU_AMOUNTS), st.integers(0, 50)), max_size=40)


def check(layout: Layout, held: list[Seat]) -> None:
    """Whole cores and GPUs have one owner, shared ones are never oversubscribed, amounts are exact."""
    whole = [core for seat in held for core in seat.whole_cores]
    assert len(whole) == len(set(whole))
    alone = [gpu for seat in held for gpu in seat.whole_gpus]
    assert len(alone) == len(set(alone))
    for core in range(len(layout.cores)):
        parts = sum(seat.cpus_milli % WHOLE for seat in held if seat.shared_core == core)
        assert parts <= (0 if core in whole else WHOLE)
    for gpu in range(len(layout.gpus)):
        parts = sum(seat.gpus_milli % WHOLE for seat in held if seat.shared_gpu == gpu)
        assert parts <= (0 if gpu in alone else WHOLE)
    for seat in held:
        assert len(seat.whole_cores) == seat.cpus_milli // WHOLE
        assert (seat.shared_core is None) == (seat.cpus_milli % WHOLE == 0)
        assert len(seat.whole_gpus) == seat.gpus_milli // WHOLE
        assert (seat.shared_gpu is None) == (seat.gpus_milli % WHOLE == 0)


@settings(derandomize=True, deadline=None, max_examples=400)
@given(LAYOUTS, STEPS)
def test_nothing_is_ever_held_twice_and_all_given_back_is_as_at_first(
    layout: Layout, steps: list[tuple[int, int] | int]
) -> None:
    book = CoreBook(layout)
    limit = 1000 * len(layout.cores) if layout.cpus_milli is None else layout.cpus_milli
    limit = min(limit, 1000 * len(layout.cores))
    held: list[Seat] = []
    for step in steps:
        if isinstance(step, int):
            if held:
                book.give_back(held.pop(step % len(held)))
        else:
            fits = book.fits(*step)
            seat = book.take(*step)
            assert fits == (seat is not None)
            if seat is not None:
                assert (seat.cpus_milli, seat.gpus_milli) == step
                held.append(seat)
        check(layout, held)
        assert book.cpus_free_milli == limit - sum(seat.cpus_milli for seat in held) >= 0
        assert book.gpus_free_milli == 1000 * len(layout.gpus) - sum(seat.gpus_milli for seat in held) >= 0
    for seat in held:
        book.give_back(seat)
    fresh = CoreBook(layout)
    assert [book.take(*step) for step in steps if isinstance(step, tuple)] == [
        fresh.take(*step) for step in steps if isinstance(step, tuple)
    ]


@settings(derandomize=True, deadline=None)
@given(LAYOUTS, AMOUNTS, GPU_AMOUNTS)
def test_what_is_not_more_than_the_empty_node_has_fits_it(layout: Layout, cpus: int, gpus: int) -> None:
    limit = 1000 * len(layout.cores) if layout.cpus_milli is None else layout.cpus_milli
    inside = cpus <= min(limit, 1000 * len(layout.cores)) and gpus <= 1000 * len(layout.gpus)
    assert CoreBook(layout).fits(cpus, gpus) == inside


@settings(derandomize=True, deadline=None)
@given(LAYOUTS, st.integers(2, 12))
def test_a_task_on_an_empty_node_is_in_as_few_domains_as_any_choice_of_cores(layout: Layout, cores: int) -> None:
    seat = CoreBook(layout).take(1000 * cores)
    if seat is not None:
        numa = [place.numa for place in layout.cores]
        sizes = sorted((numa.count(domain) for domain in set(numa)), reverse=True)
        fewest = next(n for n in range(1, len(sizes) + 1) if sum(sizes[:n]) >= cores)
        assert len(domains_of(layout, seat)) == fewest


@pytest.mark.parametrize("layout", [Layout.flat(8), node(domains=8, physical=16, threads=2, gpus=8)])
def test_a_seat_of_one_core_is_taken_and_given_back_within_two_microseconds(layout: Layout) -> None:
    book = CoreBook(layout)

    def once() -> None:
        seat = book.take(WHOLE)
        assert seat is not None
        book.give_back(seat)

    seconds = min(timeit.repeat(once, number=2000, repeat=20)) / 2000
    print(f"one core taken and given back: {seconds * 1e6:.2f} us")
    assert seconds < 10 * 2e-6  # a busy machine is slow; alone it takes about 1 us
