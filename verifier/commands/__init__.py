"""The subcommands of ``verify``, one per file."""
