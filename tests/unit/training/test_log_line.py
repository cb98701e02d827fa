"""A log is one line that can be read."""

from t3d.training.log import log_line

LOGS = {
    "loss": 0.41234567,
    "grad_norm": 1.23456,
    "learning_rate": 0.0005,
    "loss/ddo_real": 0.35,
    "loss/path": 0.31,
    "loss/total": 0.41,
    "speed/tokens_per_second": 12345.6,
    "speed/trajectories_per_second": 12.0,
    "nll/mask_ratio_1": 0.5,
    "memory/peak_gib": 1.26,
    "epoch": 0.1,
}


def test_a_line_names_the_step_the_loss_its_parts_and_the_speed():
    assert log_line(LOGS, 10, 200) == (
        "step 10 of 200: loss 0.4123 (ddo_real 0.35, path 0.31), learning rate 0.0005, gradient norm 1.23, "
        "12,346 tokens/s, 1.3 GiB"
    )
    assert log_line({"eval_few_step_accuracy": 73.43}, 10, 200) == "step 10 of 200: few step accuracy 73.43"
    summary = {"train_runtime": 12.3, "train_loss": 0.5, "train_samples_per_second": 3.0}
    assert log_line(summary, 200, 200) == "step 200 of 200: trained for 12 s, mean loss 0.5"
