"""What makes the pictures that are shipped or shown."""
