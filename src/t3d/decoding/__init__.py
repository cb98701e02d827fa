"""Block-diffusion decoding: a reference decoder and a batched one that must equal it."""
