"""Hibernation: the machine's memory, swap on vswapfs included, in an image that is verified in full
before anything of it is restored.

Owns the order of the steps (suspend, resume). Imports no command line and never the daemon: what
resumes runs in an initramfs.
"""
