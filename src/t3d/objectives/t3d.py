"""The T3D objective: DDO plus weighted path consistency (paper Eq. 10)."""

from t3d.objectives.logprobs import ObjectiveOutput


def t3d_loss(primary: ObjectiveOutput, path: ObjectiveOutput, *, path_weight: float) -> ObjectiveOutput:
    """L = L_primary + lambda * L_path. With DDO as ``primary`` it is T3D (Eq. 10).

    With Eq. 5 it is the "Naive TD + L_path" of Tables 5-7. With ``path_weight`` 0 it is the primary alone.
    """
    loss = primary.loss + path_weight * path.loss
    return ObjectiveOutput(loss=loss, metrics={**primary.metrics, **path.metrics})
