"""The jobs: transfer, texture and reconstruct, what they share, and redo, which repeats one."""
