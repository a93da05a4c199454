"""How long users wait for the function, beside what they would pick instead: one module a question."""
