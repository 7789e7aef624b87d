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

from vswapfs.daemon.config import SEGMENT_BYTES
from vswapfs.daemon.handover import Handed
from vswapfs.daemon.logs import logging_to
from vswapfs.daemon.mapped import map_all
from vswapfs.daemon.medium import open_tiers
from vswapfs.daemon.report import Reporter
from vswapfs.daemon.service import Service
from vswapfs.errors import HostError, VswapError
from vswapfs.format import instance
from vswapfs.format.message import Config, Failure, decode_config
from vswapfs.format.session import KEY_BYTES, Field, Session
from vswapfs.host import hardening

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
    if config.encrypt:
        outcomes.append(hardening.refuse_core_dumps())
    log_path = None if session[Field.FOREGROUND] else instance.log_path(config.name)
    with logging_to(log_path, config.log_level):
        if standby:
            return trio.run(Service(map_all(handed, session, config, outcomes)).succeed)
        return _run_first(handed, session, config, outcomes)


def _run_first(
    handed: Handed, session: Session, config: Config, outcomes: list[hardening.Outcome]
) -> int:
    reporter = Reporter(to_pipe=not session[Field.FOREGROUND])
    try:
        locked = outcomes[0]
        if not locked.ok and config.encrypt:
            raise HostError(
                "mlockall",
                f"{locked.detail}, and with it the key of --encrypt",
                remedy="give it CAP_IPC_LOCK or ulimit -l unlimited, or leave out --encrypt",
            )
        if not locked.ok and not config.allow_unlocked:
            raise HostError(
                "mlockall",
                locked.detail,
                remedy="give it CAP_IPC_LOCK or ulimit -l unlimited, or --allow-unlocked",
            )
        for outcome in outcomes:
            _log.log(
                logging.INFO if outcome.ok else logging.WARNING,
                "%s: %s", outcome.name, outcome.detail,
            )  # fmt: skip
        if config.encrypt:
            session.keep_key(os.urandom(KEY_BYTES))
        state = map_all(handed, session, config, outcomes)
        tiers = open_tiers(config, SEGMENT_BYTES, reporter.step)
        return trio.run(Service(state).begin, tiers, reporter)
    except VswapError as error:
        session[Field.ENDING] = 1
        reporter.end(Failure(error.message, error.remedy, error.exit_code))
        return error.exit_code
    except Exception as error:
        _log.exception("the worker ends by a defect")
        if session[Field.UP]:
            raise
        # The log goes with the instance.
        session[Field.ENDING] = 1
        reporter.end(Failure(f"a defect: {error!r}", "report it", VswapError.exit_code))
        return VswapError.exit_code
