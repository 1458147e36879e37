"""The recipes that made the networks in `impasto/models`; each is a program."""
