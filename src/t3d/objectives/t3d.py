"""The T3D objective: DDO plus weighted path consistency (paper Eq. 10)."""

from t3d.objectives.logprobs import ObjectiveOutput


def t3d_loss(ddo: ObjectiveOutput, path: ObjectiveOutput, *, path_weight: float) -> ObjectiveOutput:
    """L = L_traj-DDO + lambda * L_path (Eq. 10). With ``path_weight`` 0 this is DDO."""
    loss = ddo.loss + path_weight * path.loss
    return ObjectiveOutput(loss=loss, metrics={**ddo.metrics, **path.metrics})
