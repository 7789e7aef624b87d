"""The arithmetic of the benchmarks' report."""

import pytest
from benchmarks.bars import Bar
from benchmarks.report import Report, rotated

BAR = Bar("read", "zram", "<=", 2.0)


@pytest.fixture
def report() -> Report:
    report = Report("test", (BAR, Bar("write", "zram", "<=", 1.0), Bar("read", "", "<", 9.0)))
    for peer, values in (("zram", (1.0, 2.0, 4.0)), ("vswapfs", (3.0, 3.0, 2.0))):
        report.how[peer] = f"start {peer}"
        for number, value in enumerate(values, 1):
            report.add("read", peer, round_number=number, value=value, unit="us")
    return report


def test_ratio_is_of_medians_and_rounds_are_paired(report: Report) -> None:
    assert report.median("read", "zram") == 2.0
    assert report.ratio("read", "vswapfs", "zram") == 1.5
    assert report.ratios_by_round("read", "vswapfs", "zram") == [3.0, 1.5, 0.5]


def test_round_that_a_peer_missed_is_left_out(report: Report) -> None:
    report.add("read", "vswapfs", round_number=4, value=1.0, unit="us")
    assert report.ratios_by_round("read", "vswapfs", "zram") == [3.0, 1.5, 0.5]


def test_bar_without_peer_is_the_figure_itself(report: Report) -> None:
    assert report.beside(Bar("read", "", "<", 9.0)) == (3.0, [3.0, 3.0, 2.0])


def test_what_was_not_measured_has_no_value(report: Report) -> None:
    assert report.median("write", "zram") is None
    assert report.beside(Bar("write", "zram", "<=", 1.0)) == (None, [])
    assert report.beside(Bar("read", "nbdkit", "<=", 1.0)) == (None, [])


def test_another_peer_begins_in_each_round() -> None:
    assert [rotated("abc", count)[0] for count in range(4)] == ["a", "b", "c", "a"]
    assert sorted(rotated("abc", 2)) == ["a", "b", "c"]
    assert rotated([], 1) == []


def test_with_a_reference_each_peer_is_shown_relative_to_it(report: Report) -> None:
    sizes = Report("test", (), reference="1 GiB")
    for peer, value in (("1 GiB", 2.0), ("4 GiB", 3.0)):
        sizes.how[peer] = ""
        sizes.add("read", peer, round_number=1, value=value, unit="us")
    assert sizes.cell("read", "1 GiB") == "2"
    assert sizes.cell("read", "4 GiB") == "3 (1.50)"
    assert report.cell("read", "zram") == "2 (1.50)"
