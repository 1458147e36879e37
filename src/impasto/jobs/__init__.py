"""The jobs: transfer, texture and reconstruct, and what they share."""
