"""What the kernel's table of swap areas says."""

from vswapfs.format import swaps


def test_an_area_of_a_namespace_that_has_gone_is_found_by_its_device() -> None:
    text = (
        "Filename\tType\tSize\tUsed\tPriority\n"
        "/loop7  partition 65532 16 -2\n/dev/loop8 partition 65532 0 -3\n/swap file 1024 0 -4\n"
    )
    areas = swaps.parse(text.splitlines())
    assert list(areas) == ["/dev/loop7", "/dev/loop8", "/swap"]
    assert areas["/dev/loop7"].device == "/dev/loop7"
    assert areas["/dev/loop7"].used_bytes == 16 * 1024
