"""Every byte that leaves the process: records, control messages, names and paths of an instance.

Pure: no I/O, no clock, no threads.
"""
