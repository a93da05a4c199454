"""What the targets of the Makefile do with the local cloud."""
