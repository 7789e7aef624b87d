"""Fuzzing: runs targets under atheris, and keeps a small corpus of what they found to be new.

Owns the command line. What atheris collects is in .fuzz/TARGET; tests/corpus/TARGET is what is kept
in the repository, and what tests/property/test_fuzz_corpus.py replays without atheris.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import click
from fuzzing import keep, targets

_WORK: Final = targets.ROOT / ".fuzz"
_INPUT_MAX_BYTES: Final = 1024
_TIMEOUT_S: Final = 20
_RSS_LIMIT_MIB: Final = 2048
_GRACE_S: Final = 300.0
_LINE = "{:<10} {:>11} {:>9} {:>9} {:>9}  {}"

target_names = click.argument(
    "names", metavar="[TARGET]...", nargs=-1, type=click.Choice(targets.NAMES)
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def fuzz() -> None:
    """Feed what reads foreign bytes with bytes that nobody would write, guided by coverage."""


@fuzz.command("list")
def list_command() -> None:
    """The targets, and how many files are kept for each."""
    for name in targets.NAMES:
        click.echo(f"{name:<10} {len(targets.corpus(name)):>3}  {targets.summary(name)}")


@fuzz.command()
@target_names
@click.option("--minutes", type=click.FloatRange(min=0.05), default=1.0, show_default=True,
              help="How long to run each target.")  # fmt: skip
def run(names: tuple[str, ...], minutes: float) -> None:
    """Fuzz these targets, or all, one after the other. Ends with 1 if there is a finding."""
    click.echo(_LINE.format("target", "executions", "CPU min", "new", "findings", ""))
    found = [_fuzz(name, minutes) for name in names or targets.NAMES]
    sys.exit(any(found))


@fuzz.command("keep")
@target_names
def keep_command(names: tuple[str, ...]) -> None:
    """Make the kept corpus of these targets, or all, of the fewest inputs that reach each line."""
    for name in names or targets.NAMES:
        kept = keep.keep(name, _WORK / name / "corpus")
        click.echo(f"{name:<10} {kept:>3} files in {targets.CORPUS / name}")


@fuzz.command()
@click.argument("name", metavar="TARGET", type=click.Choice(targets.NAMES))
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def repeat(name: str, path: Path) -> None:
    """Run one input again, as that of a finding."""
    targets.runner(name)(path.read_bytes())


def _fuzz(name: str, minutes: float) -> bool:
    work = _WORK / name
    corpus = work / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(targets.seeds(name)):
        (corpus / f"seed{number}").write_bytes(seed)
    before, known = targets.cpu_seconds(), _names(corpus)
    log = work / "log"
    command = [
        sys.executable, str(Path(__file__).with_name("fuzz_one.py")), name,
        f"-max_total_time={round(minutes * 60)}", f"-max_len={_INPUT_MAX_BYTES}",
        "-len_control=0", f"-timeout={_TIMEOUT_S}", f"-rss_limit_mb={_RSS_LIMIT_MIB}",
        f"-artifact_prefix={work}/", "-print_final_stats=1",
        str(corpus), str(targets.CORPUS / name),
    ]  # fmt: skip
    with log.open("wb") as output:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            timeout=minutes * 60 + _GRACE_S, check=False,
        )  # fmt: skip
    text = log.read_text(errors="replace")
    units = re.findall(r"stat::number_of_executed_units:\s*(\d+)", text)
    artifacts = re.findall(r"Test unit written to (\S+)", text)
    failed = ended.returncode != 0
    new = len(_names(corpus) - known)
    click.echo(
        _LINE.format(
            name, units[-1] if units else "-", f"{(targets.cpu_seconds() - before) / 60:.1f}", new,
            int(failed), " ".join(artifacts) or (str(log) if failed else ""),
        )
    )  # fmt: skip
    return failed


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


if __name__ == "__main__":
    fuzz()
