"""Configuration files, and the command lines that they stand for: from the text to a geometry.

A file becomes a Config that the daemon understands, or an error of one or two lines with exit code
2, and nothing else.
"""

import os
import random
from pathlib import Path
from typing import Any, Final
from unittest import mock

import click

from fuzzing.source import Source
from vswapfs.ctl import cli, config_file, launch, readiness
from vswapfs.daemon.config import make_geometry
from vswapfs.errors import UsageError
from vswapfs.format.message import Config, Ready, decode_config, encode
from vswapfs.host.region import memory_file

SEEDS: Final = [
    b'size = "min(ram / 2, 4G)"\npool-limit = "auto"\ntier = ["/x:32G"]\nwrite-budget = "2G/day"\n',
    b'size = "1G"\npriority = 7\nallow-unlocked = true\nsame-filled = "zero"\nrecompress = true\n',
    b'size = 1048576\nwriteback-start = 50\nwriteback-stop = 20\npolling-window = 0\n',
    b'size = "1G"\ntier-overwrite = true\ntier = ["/a\\u0000b:4M"]\nlog-level = "error"\n',
    *(bytes([255]) + random.Random(kind).randbytes(60) for kind in range(12)),
]  # fmt: skip

_KEYS: Final = tuple(sorted(config_file.keys(cli.on)))
_VALUES: Final = (
    '"1G"', '"ram / 2"', "true", "false", "1048576", '["/t:4M"]', '["/t:4M", "/u:1T"]', '"20G/day"',
    '"auto"', "-1", "1.5", '""', "[]", "{}", "1979-05-27", '"\\u0000"', '"no"', '"same"', "inf",
    '"99999999999999999999T"', "0x" + "f" * 20, "[[]]", '"(ram)"', '"/t:4M"', "100", "3", "12",
)  # fmt: skip
_LINES_MAX: Final = 8

_fd: Final = memory_file("fuzz", 0)
_DIRECTORY: Final = Path("/proc/self/fd")


def run(data: bytes) -> None:
    text = _written(Source(data[1:])) if data[:1] == b"\xff" else data
    os.ftruncate(_fd, 0)
    os.pwrite(_fd, text, 0)
    started: list[Config] = []

    def start(config: Config, _show: Any) -> Ready:
        started.append(decode_config(encode(config)))
        return Ready(config.mountpoint, None)

    with (
        mock.patch.object(launch, "start", start),
        mock.patch.object(readiness, "tell"),
    ):
        path = str(_DIRECTORY / str(_fd))
        try:
            cli.on.main(["--config", path], "vswapctl on", standalone_mode=False)
        except (click.ClickException, UsageError) as error:
            if error.exit_code != UsageError.exit_code:
                raise
            return
    (config,) = started
    try:
        make_geometry(config)
    except UsageError:
        return


def _written(source: Source) -> bytes:
    """A file that is nearly right."""
    lines = []
    for _ in range(source.number(1, _LINES_MAX)):
        key = source.choice(_KEYS)
        shape = source.byte() % 16
        value: str = source.choice(_VALUES)
        if shape == 1:
            value = "[" * source.number(0, 3000)
        elif shape == 2:
            value = source.take(source.number(0, 30)).decode("latin-1")
        elif shape == 3:
            value = source.choice(("", "0x", '"', "'")) + "9" * source.number(0, 6000)
        elif shape == 4:
            depth = source.number(0, 3000)
            value = '"' + source.choice(("(", "max(", "1-", "9*")) * depth + '1"'
        elif shape == 5:
            key = source.take(5).decode("latin-1")
        lines.append(f"{key} = {value}\n")
    return "".join(lines).encode("utf-8", "replace") + source.take(4)
