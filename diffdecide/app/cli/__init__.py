"""The command line, one module a command.

A module offers `COMMAND`, or `COMMANDS` (name -> class) for a group. A command is a frozen dataclass: its fields are
the options, `__post_init__` refuses bad values with a ValueError, `execute()` does the work.
"""
