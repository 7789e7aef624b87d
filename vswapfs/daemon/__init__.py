"""The daemon: wiring and lifetime. Everything else may be imported from here; nothing imports it."""
