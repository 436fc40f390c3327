"""The composition root: settings, the command line, Ray's start-up, whole backups and restores."""
