"""The CDK app: stages, the stack of each, and the package that its function runs."""
