"""The machine around us: memory regions, protections, loop devices, swap areas.

Every function raises HostError with the step and the reason; none keeps state of its own: what is
set up is found again in the kernel (/proc/swaps, /sys/block), also by another process.
"""
