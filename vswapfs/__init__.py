"""vswapfs: a virtual swap space for Linux, in user space."""

__version__ = "0.1.0"
