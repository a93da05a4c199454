"""The data layer of a multi-tenant SaaS backend."""
