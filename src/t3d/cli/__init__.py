"""The command line: a file per command, flags they share, ``--config``, errors on one screen."""
