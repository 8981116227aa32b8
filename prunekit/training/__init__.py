"""The training loop, and the mathematics that training methods share."""
