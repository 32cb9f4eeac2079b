"""The commands: flags, exit codes, progress bars."""
