"""What exists: one module per family of Mixpanel data."""
