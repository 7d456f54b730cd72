"""The command line, a file a command. Each parses here and works elsewhere, in modules imported when it is called."""

from mora_launch.cli.command_line import cli, main

__all__ = ["cli", "main"]
