"""Parts that a configuration exchanges: masks, substitutes, retain terms, latent sources."""
