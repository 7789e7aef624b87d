"""Bytes on media: a file or block device, memory for tests, and one that fails on purpose.

Knows nothing of pages, segments and who reads them; never imports the store.
"""
