"""The blocks of a stage in cdk.json, a module for each. `infra.stages` combines them."""
