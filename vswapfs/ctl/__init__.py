"""The commands: vswapctl and vswapfs. They talk to the daemon and never import it."""
