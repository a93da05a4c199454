"""The commands `migrate rollout ...`."""
