"""The e-mail channel: one file a provider."""
