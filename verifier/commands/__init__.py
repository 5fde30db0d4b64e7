"""What the subcommands of ``verify`` do, one file each; ``verifier.cli`` has their options."""
