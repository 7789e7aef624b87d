"""Fuzz targets: each takes any bytes, makes something to be read of them, and must not fail."""
