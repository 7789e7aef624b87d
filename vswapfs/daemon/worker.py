"""The worker and the standby: one program; a standby is a worker whose turn has not come.

Owns the start of both: protections of the process, mapping what was handed over. The standby maps
and prefaults all of it, so that nothing has to be loaded, mapped or asked for when its turn comes.
"""

import logging
import os
import signal
import sys
from typing import Final

import trio

from vswapfs.core.buffers import Buffers, Geometry
from vswapfs.daemon.config import SEGMENT_BYTES, SEGMENT_CAPACITY
from vswapfs.daemon.handover import BUFFER_PARTS, Handed
from vswapfs.daemon.logs import logging_to
from vswapfs.daemon.medium import open_tiers
from vswapfs.daemon.report import Reporter
from vswapfs.daemon.service import Service, State
from vswapfs.errors import HostError, VswapError
from vswapfs.format import instance
from vswapfs.format.message import Failure, decode_config
from vswapfs.format.session import Field
from vswapfs.fuse.journal import JOURNAL_BYTES
from vswapfs.host import hardening, memory
from vswapfs.host.region import MemoryRegion, map_files
from vswapfs.units import PAGE_BYTES

SWITCH_INTERVAL_S: Final = 100e-6
"""How long another thread may keep the interpreter while the lane wants it; Python's default of
5 ms would be 200 page loads."""

_log = logging.getLogger(__name__)


def run(handed: Handed, *, standby: bool) -> int:
    """Serve until the instance is taken down; returns the exit code.

    Raises VswapError when it could not be brought up.
    """
    if standby:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
    handed.set_inheritable(False)
    session = handed.open_session()
    session.check_version()
    hardening.keep_heap()
    outcomes = [
        hardening.lock_memory(),
        # Before any other thread is started: threads inherit it.
        hardening.flush_io_thread(),
        hardening.spare_from_oom_killer(),
    ]
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    config = decode_config(session.config)
    log_path = None if session[Field.FOREGROUND] else instance.log_path(config.name)
    # What was asked for may depend on the machine; what there is decides.
    slot_count = os.fstat(handed.pool).st_size // SEGMENT_BYTES
    geometry = Geometry(
        config.size_bytes // PAGE_BYTES, slot_count, SEGMENT_BYTES, SEGMENT_CAPACITY
    )
    regions = map_files(
        {part: getattr(handed, part) for part in BUFFER_PARTS},
        geometry.sizes_bytes(),
        # What survives is on a tmpfs that is never swapped out.
        locked=not session[Field.SURVIVES],
    )
    # The kernel uses an area from its begin on. A store must not wait for memory.
    regions["descriptors"].keep(memory.kept_descriptor_bytes())
    journal = MemoryRegion(handed.journal, JOURNAL_BYTES)
    state = State(handed, session, config, geometry, regions, Buffers(**regions), journal, outcomes)
    with logging_to(log_path, config.log_level):
        if standby:
            return trio.run(Service(state).succeed)
        return _run_first(state)


def _run_first(state: State) -> int:
    reporter = Reporter(to_pipe=not state.session[Field.FOREGROUND])
    try:
        locked = state.outcomes[0]
        if not locked.ok and not state.config.allow_unlocked:
            raise HostError("mlockall", locked.detail, remedy="run as root, or --allow-unlocked")
        for outcome in state.outcomes:
            _log.log(
                logging.INFO if outcome.ok else logging.WARNING,
                "%s: %s", outcome.name, outcome.detail,
            )  # fmt: skip
        tiers = open_tiers(state.config, SEGMENT_BYTES, reporter.step)
        return trio.run(Service(state).begin, tiers, reporter)
    except VswapError as error:
        state.session[Field.ENDING] = 1
        reporter.end(Failure(error.message, error.remedy, error.exit_code))
        return error.exit_code
