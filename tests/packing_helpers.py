"""Packed batches in tests."""

from t3d.attention.packed_forward import arrange, packed_forward


def loss_logits(model, batch, attention="dense"):
    """Logits ``[M, V]`` at the loss positions of a packed batch."""
    return packed_forward(
        model, batch, arrange(batch, attention), logit_positions=batch["loss_positions"]
    ).logits
