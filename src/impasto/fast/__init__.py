"""Any style in one pass: a small network that was trained on what the optimiser minimises."""
