"""The rules, one module each: its ``RULE``, and ``check`` if no check in the folder above finds it with others.

The docstring of a module without ``check`` names the function that finds the rule, such as `keys.names`.
"""
