"""The rules, one module for each: its ``RULE``, and its ``check`` function.

If a function of the folder above checks several rules, the docstrings of their modules name it, such as `keys.names`.
"""
