"""The session's configuration is replaced in one store: whoever reads has the old or the new."""

import pytest

from vswapfs.errors import UsageError
from vswapfs.format.session import SESSION_BYTES, Field, Session, TierEntry


def make_session() -> Session:
    session = Session(memoryview(bytearray(SESSION_BYTES)))
    session.begin(b"first")
    return session


def test_a_config_that_was_not_vouched_for_does_not_count() -> None:
    session = make_session()
    for config in (b"second, and longer", b"3", b"fourth"):
        word = session[Field.CONFIG]
        before = session.config
        session.keep_config(config)
        assert session.config == config
        # Killed before the word was replaced.
        session[Field.CONFIG], new = word, session[Field.CONFIG]
        assert session.config == before
        session[Field.CONFIG] = new


def test_a_config_that_is_too_long_changes_nothing() -> None:
    session = make_session()
    with pytest.raises(UsageError, match="at most"):
        session.keep_config(bytes(1 << 20))
    assert session.config == b"first"
    session.check_version()


def test_tiers_that_are_there_are_counted() -> None:
    session = make_session()
    counts = [session[Field.TIERS]]
    for number in (1, 2):
        session.keep_tier(TierEntry(number, True, 8, 8 << 20, bytes(16), f"/tier{number}"))
        counts.append(session[Field.TIERS])
    session.drop_tier(1)
    counts.append(session[Field.TIERS])
    assert counts == [0, 1, 2, 1]
