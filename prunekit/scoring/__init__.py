"""From calibration examples to a plan without training: scores, allocation, rearrangement, tuning."""
