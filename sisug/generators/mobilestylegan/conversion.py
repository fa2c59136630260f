"""From the published wheel of MobileStyleGAN to a file of sisug's own (generators): once, into the cache folder."""
