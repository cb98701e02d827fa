"""Problems with a verifier: benchmarks, prompt files and the mini suite."""
