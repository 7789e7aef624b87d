"""What people ask, which command answers, and what its words mean: for --help and the man page.

Owns these texts. Never asks a daemon.
"""

from typing import Final, NamedTuple


class Question(NamedTuple):
    question: str
    commands: str
    answer: str
    """Where to look in what they print; for the man page."""


QUESTIONS: Final = (
    Question(
        "Where is the page at an offset?",
        "desc",
        "STATE says what it is (see WORDS). A page in the pool or on a tier is a record, at byte "
        "PLACE of segment SEGMENT; for one on a tier, TIER is the tier's path and the byte of the "
        "record there. Slot N of the kernel, which page tables name, is at offset N * 4096.",
    ),
    Question(
        "Whose pages are these?",
        "owners",
        "A line for each process, then one for each memory cgroup; below it what no page table "
        "names.",
    ),
    Question(
        "Why is the pool full?",
        "status, top, tier list",
        "status has POOL-USED and POOL-LIMIT, and warns when writes were refused: then the pool "
        "was full and no tier took more. Pages that do not compress: RATIO, pages.incompressible "
        "in stats, and map --by ratio shows where they are. Nothing goes to a tier: tier list "
        "shows that there is none, that it is full (USED near SIZE), that it fails, or that the "
        "write budget is spent. Pages that the kernel no longer needs: the stale ones in "
        "reconcile, and what they take of the pool. Room between records: pool.density_pct in "
        "stats, and map --segments. Who has so much: POOL-SIZE in owners.",
    ),
    Question(
        "Why does /proc/swaps say so much?",
        "reconcile",
        "It puts what is held here and what the kernel counts one below the other.",
    ),
    Question(
        "How is it spread, how old is it?",
        "map",
        "With --segments the segments in RAM and on tiers, with --tier each tier as it lies.",
    ),
    Question(
        "What happens now, and how fast?",
        "top, trace",
        "top shows figures and their rates, trace single requests.",
    ),
    Question(
        "What was last night?",
        "record, replay, metrics",
        "record keeps samples, and replay shows them as top would have. metrics is for a system "
        "that monitors.",
    ),
    Question(
        "Is a tier sound, what is on it?",
        "scrub, log check",
        "scrub is for tiers in use, log check and log dump for others. lost shows the pages that "
        "could not be verified.",
    ),
)

WORDS: Final = (
    ("area", "what is swapped to: SIZE bytes of slots, of which each can hold a page."),
    ("slot", "a place for one page of 4096 bytes. Its offset is counted from the area's start."),
    ("empty", "a state: nothing is held for the slot."),
    ("zero", "a state: a page of zeros, kept as a marker that takes no room."),
    ("same", "a state: a page that repeats another 8 bytes, kept as a marker too."),
    ("pool", "a state: the page is in RAM, compressed if that makes it shorter. Also all RAM for "
     "such pages."),
    ("disk", "a state: the page is on a tier, as it was in the pool."),
    ("damaged", "a state: the slot's descriptor is not as it was written; reading it is an error."),
    ("record", "a page as it is stored: a header of 14 bytes with its checksum, and its bytes."),
    ("segment", "1 MiB of records, in RAM or on a tier. Full ones are sealed and never change; "
     "those of which little is live are cleaned: what is live is copied out, and all is free."),
    ("live", "bytes of records that a slot points to; others in a segment are dead."),
    ("tier", "a file or block device that segments are written to when RAM for them runs short."),
    ("stale", "a page that is held for a slot that the kernel has freed without saying so."),
    ("cluster", "512 slots in a row. The kernel says that slots are free for whole ones only."),
)  # fmt: skip


def help_text() -> str:
    """The questions and commands, for --help."""
    width = max(len(each.question) for each in QUESTIONS) + 2
    lines = (f"  {each.question:<{width}}{each.commands}" for each in QUESTIONS)
    return "\n".join(("\b", "Questions, and the commands that answer:", *lines))
