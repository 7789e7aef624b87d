"""Writes docs/man and vswapfs/ctl/completions from the code: .venv/bin/python tools/manual.py

Owns the form of the pages: what they say is the help of the commands, the options and the first
lines of the modules that own a format. tests/frame/test_manual.py fails when a file is out of date.
"""

import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from vswapfs import __version__, errors
from vswapfs.ctl import config_file, questions
from vswapfs.ctl.cli import cli, on
from vswapfs.ctl.mount import vswapfs
from vswapfs.errors import VswapError
from vswapfs.format import instance, record, tier

ROOT: Final = Path(__file__).resolve().parent.parent
MAN: Final = ROOT / "docs/man"
COMPLETIONS: Final = ROOT / "vswapfs/ctl/completions"
SHELLS: Final = {
    "bash/{}": BashComplete,
    "zsh/_{}": ZshComplete,
    "fish/{}.fish": FishComplete,
}
"""By where the shell looks for it."""
COMMANDS: Final[dict[str, click.Command]] = {"vswapctl": cli, "vswapfs": vswapfs}

_PAGES: Final = (
    ("vswapctl", 8), ("vswapfs", 8), ("vswapfs.toml", 5), ("vswapfs-log", 5), ("swapon", 8),
)  # fmt: skip
"""Others are named below each."""

_TOML_EXAMPLE: Final = """\
# /etc/vswapfs/vswap0.toml
size = "min(ram, 16G)"
pool-limit = "auto"
tier = ["/dev/disk/by-id/nvme-X-part3:32G"]
write-budget = "20G/day"
priority = 100
"""


def written() -> dict[Path, str]:
    """All files and what has to be in them."""
    pages = {
        "vswapctl.8": _page("vswapctl", 8, "set up and look into virtual swap spaces", _vswapctl()),
        "vswapfs.8": _page("vswapfs", 8, "mount a virtual swap space", _vswapfs()),
        "vswapfs.toml.5": _page("vswapfs.toml", 5, "configuration of an instance", _toml()),
        "vswapfs-log.5": _page("vswapfs-log", 5, "the log of vswapfs on disk", _log()),
    }
    files = {MAN / name: text for name, text in pages.items()}
    for command, group in COMMANDS.items():
        for name, kind in SHELLS.items():
            complete = kind(group, {}, command, f"_{command.upper()}_COMPLETE")
            # Without the look for a bash that is recent enough: it is here, and not for here.
            text = ShellComplete.source(complete)
            files[COMPLETIONS / name.format(command)] = (
                "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n"
            )
    return files


# -- troff -----------------------------------------------------------------------------------


def _plain(text: str) -> str:
    """Text as troff takes it."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(
        f"\\&{line}" if line.startswith((".", "'")) else line for line in escaped.splitlines()
    )


def _bold(text: str) -> str:
    return f"\\fB{_plain(text)}\\fR"


def _verbatim(text: str) -> Iterator[str]:
    yield from (".RS 4", ".nf", _plain(textwrap.dedent(text)), ".fi", ".RE")


def _prose(text: str | None) -> Iterator[str]:
    """Paragraphs as click has them: one behind a \\b stays as it is."""
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text or "")):
        yield ".PP"
        if paragraph.startswith("\b"):
            title, _, rest = paragraph.removeprefix("\b\n").partition("\n")
            yield _plain(title)
            yield from _verbatim(rest)
        else:
            yield _plain(" ".join(paragraph.split()))


def _document(text: str) -> Iterator[str]:
    """The first lines of a module: indented blocks stay as they are. Of what it owns and never
    does only what always holds is of use to who does not read it."""
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        told = block
        if block.startswith("Owns "):
            told = block.partition("Always holds:")[2].strip()
        if not told:
            continue
        yield ".PP"
        if told.startswith("    ") or "\n    " in told:
            yield from _verbatim(told)
        else:
            yield _plain(" ".join(told.split()))


def _page(name: str, section: int, brief: str, body: Iterator[str]) -> str:
    lines = [
        '.\\" Written by tools/manual.py.',
        f'.TH "{name}" "{section}" "" "vswapfs {__version__}"',
        ".SH NAME",
        f"{_plain(name)} \\- {brief}",
        *body,
        ".SH SEE ALSO",
        ",\n".join(f".BR {_plain(each)} ({part})" for each, part in _PAGES if each != name),
    ]
    return "\n".join(lines) + "\n"


# -- pages -----------------------------------------------------------------------------------


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    return click.Context(command, info_name=name, parent=parent)


def _usage(context: click.Context) -> str:
    pieces = context.command.collect_usage_pieces(context)
    return f"{_bold(context.command_path)} {_plain(' '.join(pieces))}"


def _options(context: click.Context) -> Iterator[str]:
    for param in context.command.get_params(context):
        record_ = param.get_help_record(context)
        if record_ and isinstance(param, click.Option) and "--help" not in param.opts:
            yield from (".TP", _bold(record_[0]), _plain(record_[1]))


def _command(command: click.Command, name: str, parent: click.Context) -> Iterator[str]:
    context = _context(command, name, parent)
    if isinstance(command, click.Group):
        for each in sorted(command.commands):
            yield from _command(command.commands[each], each, context)
        return
    yield f".SS {_usage(context)}"
    yield from _prose(command.help)
    yield from _options(context)
    yield from _prose(command.epilog)


def _exit_codes() -> Iterator[str]:
    yield ".SH EXIT STATUS"
    codes = {0: "What was asked for is done.", 1: "Something is wrong, as the output says."}
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, VswapError) and kind.exit_code > 1:
            # The second paragraph is for who catches it.
            told = " ".join(inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].split())
            codes[kind.exit_code] = " ".join(filter(None, (codes.get(kind.exit_code), told)))
    codes[130], codes[141] = "Ended by ctrl-C.", "The reader of the output has gone."
    for code in sorted(codes):
        yield from (".TP", _bold(str(code)), _plain(codes[code]))


def _vswapctl() -> Iterator[str]:
    context = _context(cli, "vswapctl", None)
    yield from (".SH SYNOPSIS", f"{_bold('vswapctl')} COMMAND [OPTIONS] [NAME] ...")
    yield ".SH DESCRIPTION"
    yield from _prose(cli.help)
    yield ".SH QUESTIONS"
    for each in questions.QUESTIONS:
        yield from (".TP", f"{_plain(each.question)} {_bold(each.commands)}", _plain(each.answer))
    yield ".SH COMMANDS"
    for name in sorted(cli.commands):
        yield from _command(cli.commands[name], name, context)
    yield from _exit_codes()
    yield ".SH WORDS"
    for word, meaning in questions.WORDS:
        yield from (".TP", _bold(word), _plain(meaning))
    yield ".SH FILES"
    yield from (".TP", _bold(f"{config_file.DIRECTORY}/NAME.toml"), "See \\fBvswapfs.toml\\fR(5).")
    yield from (".TP", _bold(instance.RUN_DIRECTORY))
    yield "What instances that are up have there:"
    yield from _verbatim((instance.__doc__ or "").split("\n\n")[2])


def _vswapfs() -> Iterator[str]:
    context = _context(vswapfs, "vswapfs", None)
    yield from (".SH SYNOPSIS", _usage(context), ".SH DESCRIPTION")
    yield from _prose(vswapfs.help)
    yield ".SH OPTIONS"
    yield from _options(context)
    yield from _exit_codes()


def _toml() -> Iterator[str]:
    yield ".SH DESCRIPTION"
    yield from _prose(
        f"""
        A file with options of vswapctl on, in TOML: each key is an option without its dashes. It is
        read by vswapctl on --config FILE and, as {config_file.DIRECTORY}/NAME.toml, by the unit
        vswapfs@NAME of systemd. The name of the instance is that of the file. What is also given on
        the command line counts more.

        A value is a string as on the command line, or a whole number. Of options that may be given
        again it is a list of strings, of those without a value true or false.

        A size may be an expression: sizes and numbers, ram (the machine's memory in bytes), + - *
        /, min(), max() and parentheses, of at most 200 characters. It is rounded down to whole MiB.
        Unlike in the configuration of zram-generator a number without a unit is in bytes, not MB.
        """
    )
    yield ".SH KEYS"
    context = _context(on, "on", None)
    for key, option in sorted(config_file.keys(on).items()):
        record_ = option.get_help_record(context)
        assert record_
        yield from (".TP", _bold(key), _plain(record_[1]))
    yield ".SH EXAMPLE"
    yield from _verbatim(_TOML_EXAMPLE)
    yield from _prose("\b\nAnd then:\n  systemctl enable --now vswapfs@vswap0")


def _log() -> Iterator[str]:
    yield ".SH DESCRIPTION"
    yield from _prose(
        "What a tier of vswapfs, a file or block device, has on it. To be read with vswapctl log."
    )
    yield ".SH THE MEDIUM"
    yield from _document(tier.__doc__ or "")
    yield ".SH RECORDS"
    yield from _document(record.__doc__ or "")


def main() -> None:
    for path, text in written().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
