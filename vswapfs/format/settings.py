"""What can be set while an instance is up.

Owns the messages. The keys are those fields of message.Config that can change; a value has the type
and the meaning that it has there.
"""

import msgspec

Value = int | str | bool | None


class AskSet(msgspec.Struct, tag="set"):
    """Answered with Changed; it is in force then, and a successor will know it."""

    key: str
    value: Value


class Changed(msgspec.Struct, tag="changed"):
    old: Value
    new: Value
