"""The FUSE side: the kernel's wire format, the lane in front, pyfuse3 behind it, the mount."""
