"""The built-in benchmark: small verifiable tasks and a really trained teacher, for two CPU cores."""
