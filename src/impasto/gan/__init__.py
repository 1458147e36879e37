"""Networks that paint from noise: how they are made, trained and judged."""
