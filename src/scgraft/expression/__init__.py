"""Expression from latents: decode, draw, compare, residuals."""
