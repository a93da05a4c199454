"""The backend of a multi-tenant SaaS; its data layer is what stands here."""
