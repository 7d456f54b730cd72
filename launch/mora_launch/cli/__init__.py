"""The command line, one file per command. A command parses its arguments, then imports the modules that do the work."""

from mora_launch.cli.command_line import cli, main

__all__ = ["cli", "main"]
