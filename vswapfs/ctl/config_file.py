"""Configuration files: the options of `vswapctl on`, by their names, in TOML.

Owns the reading of the file and the errors that name file and key. Never interprets a value: that
is done by the option whose name the key is, so file and command line cannot differ. What is given
on the command line counts.
"""

import tomllib
from pathlib import Path
from typing import Any, Final

import click

from vswapfs.ctl.options import CONFIG_FILE
from vswapfs.errors import UsageError

DIRECTORY: Final = "/etc/vswapfs"
FILE_MAX_BYTES: Final = 1 << 20
_NOT_KEYS: Final = {"config", "help"}


def keys(command: click.Command) -> dict[str, click.Option]:
    """The options of a command that a file may give, by key."""
    found = {}
    for param in command.params:
        if isinstance(param, click.Option):
            key = param.opts[0].removeprefix("--")
            if key not in _NOT_KEYS:
                found[key] = param
    return found


def use(ctx: click.Context, _param: click.Parameter, path: Path | None) -> None:
    """The callback of --config: what is in the file becomes the default of each option.

    The name of the instance is the file's, if no other is given. Raises UsageError.
    """
    if path is None:
        return
    options = keys(ctx.command)
    defaults: dict[str, Any] = {"name": path.stem}
    for key, value in _read(path).items():
        option = options.get(key)
        if option is None:
            raise UsageError(
                f"{path}: {key!r} is no option of vswapctl on",
                remedy=f"choose from {', '.join(sorted(options))}",
            )
        assert option.name
        defaults[option.name] = _check(path, key, value, option)
    ctx.meta[CONFIG_FILE] = path
    ctx.default_map = defaults


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(FILE_MAX_BYTES + 1)
        if len(text) > FILE_MAX_BYTES:
            raise UsageError(
                f"{path} is no configuration: it has more than {FILE_MAX_BYTES} bytes",
                remedy="vswapctl on --help",
            )
        return tomllib.loads(text.decode())
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}", remedy="vswapctl on --help"
        ) from None
    except RecursionError:
        why = "it is nested too deeply"
    except ValueError as error:  # of TOML, of UTF-8, or of a number with too many digits
        why = str(error)
    raise UsageError(f"{path} is not TOML: {why}", remedy="vswapctl on --help")


def _check(path: Path, key: str, value: Any, option: click.Option) -> Any:
    """The value as the option takes it from the command line."""
    try:
        shown = repr(value)
    except ValueError:  # of more than 4300 decimal digits, and so written in hexadecimal ones
        raise UsageError(f"{path}: {key}: a number has too many digits") from None
    if option.is_flag:
        rule, fits = "true or false", isinstance(value, bool)
    elif option.multiple:
        rule = "a list of strings"
        fits = isinstance(value, list) and all(isinstance(each, str) for each in value)
    else:
        rule = "a string or a whole number"
        fits = isinstance(value, str | int) and not isinstance(value, bool)
    if not fits:
        raise UsageError(f"{path}: {key} = {shown}: it is {rule}", remedy="vswapctl on --help")
    return value if option.is_flag or option.multiple else str(value)
