"""Budgets in time: a table of what each part takes, a plan by it, and the measurement that corrects it."""
