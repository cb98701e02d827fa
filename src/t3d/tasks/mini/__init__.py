"""The built-in tasks: small, verifiable, with many right answers each."""
