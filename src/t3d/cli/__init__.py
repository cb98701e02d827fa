"""The command line: ``t3d demo | rollout | train | eval | grade | compare | reproduce | generate | data``."""
