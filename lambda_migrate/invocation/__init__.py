"""The contract with callers, settings, time and log lines: every other package may use these."""
