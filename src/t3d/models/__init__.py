"""SDAR models on transformers, their masks, loading and export."""
