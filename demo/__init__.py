"""The programs behind the Makefile's targets for the local cloud."""
