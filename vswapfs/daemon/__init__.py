"""The daemon: wiring and lifetime. It may import everything else; nothing imports it."""
