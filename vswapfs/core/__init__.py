"""The store: a plain state machine over flat buffers. No I/O, clock, threads or randomness.

Buffers, time and random numbers come in as arguments, so that a million operations can be tested
in seconds and replayed from a seed, and so that the buffers may outlive the process.
"""
