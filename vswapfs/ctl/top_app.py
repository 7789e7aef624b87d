"""The full-terminal view: keys, time, and a screen that is drawn anew for each sample.

Owns the application of textual; the only module that imports it, and itself imported only by what
opens the view. Never computes or lays out a figure. Always holds: the daemon may end and come back
at any time, which is told in a line and never ends the view; the terminal is left as it was.
"""

import asyncio
import signal
from typing import ClassVar, Final

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import ScrollableContainer
from textual.events import Resize
from textual.screen import ModalScreen
from textual.widgets import Footer, Static

from vswapfs.ctl import screen
from vswapfs.ctl.feed import Feed
from vswapfs.ctl.history import History
from vswapfs.errors import RecordingError, VswapError

INTERVALS_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)

HELP: Final = """\
space  pause, and go on        + -  longer and shorter interval
i      next instance           h    this help, and back
q      quit

area     what the kernel may swap here, and what is used. kernel: its
         own figure, with zero pages that it never writes, and without
         freed ones that it has not told of.
states   pool: compressed in RAM. disk: on a tier. same, zero: one
         repeated pattern, kept as a marker. empty: nothing.
traffic  pages stored and loaded, before compression.
latency  of requests, from the daemon's having one to its answer.
pool     RAM that pages take, of its limit. density: the share of it
         that is of use; the cleaner makes room of the rest.
ratio    original over stored size.
disk     writeback goes on while the pool is above its watermark.
memory   of the machine. pressure: share of the last 10 s in which a
         task waited for memory.

All figures, with their meaning: vswapctl stats"""


class Help(ModalScreen[None]):
    """What the keys and the words mean."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("h,question_mark,escape,enter,space", "dismiss", "Back"),
        Binding("q,ctrl+c", "app.quit", "Quit", key_display="q"),
    ]

    def compose(self) -> ComposeResult:
        yield ScrollableContainer(Static(HELP, markup=False))
        yield Footer()


class TopApp(App[None]):
    """``failure``: the recording was bad, which the caller is to tell when the view is closed."""

    CSS = """
    ScrollableContainer { scrollbar-size: 0 0; }
    Static { width: auto; text-wrap: nowrap; }
    Help { background: $background; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "pause", "Pause"),
        Binding("plus", "interval(1)", "Slower", key_display="+"),
        Binding("minus", "interval(-1)", "Faster", key_display="-"),
        Binding("i", "instance", "Instance"),
        Binding("h,question_mark", "help", "Help", key_display="h"),
        Binding("q,ctrl+c", "quit", "Quit", key_display="q", priority=True),
    ]

    def __init__(self, feed: Feed, interval_s: float) -> None:
        super().__init__()
        self._feed = feed
        self._interval_s = interval_s
        self._history = History()
        self._paused = False
        self._notice = ""
        self._hurry = asyncio.Event()
        self.failure: VswapError | None = None

    def compose(self) -> ComposeResult:
        yield ScrollableContainer(Static(id="figures"))
        yield Footer()

    def on_mount(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.exit)
        self.run_worker(self._watch())

    def on_resize(self, event: Resize) -> None:
        self.call_after_refresh(self._draw)  # until then, ``size`` is the one before

    # -- samples -----------------------------------------------------------------------------

    async def _watch(self) -> None:
        """A sample each interval, until there are no more; pausing is not asking."""
        ended = False
        while not ended:
            self._hurry.clear()
            if not self._paused:
                ended = await self._take()
                self._draw()
            try:
                await asyncio.wait_for(self._hurry.wait(), self._interval_s)
            except TimeoutError:
                continue

    async def _take(self) -> bool:
        """The sample that is due, or a notice; True if there will be no more."""
        history = self._history
        try:
            sample = await asyncio.to_thread(self._feed.take)
        except RecordingError as error:
            self.failure = error
            self._notice = error.message
            return True
        except VswapError as error:
            self._notice = f"{error.message}; trying again"
            return False
        if sample is None:
            self._notice = "this is the end of the recording"
            return True
        self._notice = ""
        history.add(sample)
        return False

    def _draw(self) -> None:
        if self._history:
            shown = screen.Shown(self._interval_s, self._paused, self._feed.source, self._notice)
            height = self.size.height - 1  # the last line has the keys
            text = screen.draw(self._history, shown, self.size.width, height)
            self.query_one("#figures", Static).update(text)
        elif self._notice:
            self.query_one("#figures", Static).update(self._notice)

    # -- keys --------------------------------------------------------------------------------

    def action_pause(self) -> None:
        self._paused = not self._paused
        self._draw()
        self._hurry.set()

    def action_interval(self, step: int) -> None:
        """To the next longer or shorter one."""
        longer = [each for each in INTERVALS_S if each > self._interval_s]
        shorter = [each for each in INTERVALS_S if each < self._interval_s]
        choices = longer[:1] if step > 0 else shorter[-1:]
        self._interval_s = choices[0] if choices else self._interval_s
        self._draw()
        self._hurry.set()

    def action_instance(self) -> None:
        if self._feed.switch():
            self._history = History()
            self._notice = ""
            self._hurry.set()

    def action_help(self) -> None:
        self.push_screen(Help())
