"""One target under atheris: TARGET, then options and directories of libFuzzer. See fuzz.py.

Owns what is instrumented: all of vswapfs. A process of its own, because libFuzzer ends it.
"""

import logging
import sys

import atheris

with atheris.instrument_imports(include=["vswapfs"], enable_loader_override=False):
    from fuzzing import targets

    RUN = targets.runner(sys.argv[1])

logging.disable(logging.CRITICAL)
atheris.Setup([sys.argv[0], *sys.argv[2:]], RUN)
atheris.Fuzz()
