"""The assets: one module per family of Mixpanel data."""
