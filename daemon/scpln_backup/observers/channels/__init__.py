"""The parties that are told, one module each: what to tell them (pure), and the way to them."""
