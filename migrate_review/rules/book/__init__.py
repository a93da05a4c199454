"""The rules, one module each: its ``RULE``, and ``check`` if no check in the folder above finds it with others."""
